//! A bar on the terminal: the line on stderr that shows how far the command has come, of which there is one.
//!
//! It is drawn from what the guest tells and by nobody else, as no thread can be started in the sandbox; and what there is to
//! know of the terminal is asked for before, as nobody can ask for it there.

use std::{
    env,
    io::{self, Write},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use protocol::Progress;

/// Columns of a terminal that does not say how many it has, and the most that are used.
const COLUMNS: u16 = 80;
const MAX_COLUMNS: u16 = 100;

/// How often it is drawn a second, at most.
const RATE: u8 = 10;

/// What it looks like while the command goes on, and at the end.
const RUNNING: &str =
    "{percent:>3}% [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
const COMPLETE: &str = "{percent:>3}% [{wide_bar}] {binary_bytes}, {binary_bytes_per_sec}, {elapsed}";

static BAR: OnceLock<ProgressBar> = OnceLock::new();

static SCREEN: Mutex<Screen> = Mutex::new(Screen::Free);

/// What is on the line of the terminal that the cursor is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Screen {
    /// Nothing.
    Free,
    /// The bar, which stands in the way of other lines.
    Bar,
    /// Nothing, and that is to stay so: the process ends.
    Left,
}

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a terminal is one that lines can be drawn over on.
pub fn can_be_drawn() -> bool {
    env::var_os("TERM").is_some_and(|terminal| !terminal.is_empty() && terminal != "dumb")
}

/// Gets ready to draw it. To be called before the sandbox is entered.
pub fn start() {
    // Who draws would ask the terminal.
    console::set_colors_enabled(false);
    console::set_colors_enabled_stderr(false);
    let term = Term::buffered_stderr();
    let columns = term.size_checked().map_or(COLUMNS, |(_, columns)| columns.min(MAX_COLUMNS));
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(Terminal { term, columns }), RATE);
    BAR.get_or_init(|| ProgressBar::with_draw_target(None, target).with_style(style(RUNNING)));
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

/// Draws how far the command has come.
pub fn tell(Progress { done, total, .. }: Progress) {
    let Some(bar) = BAR.get().filter(|_| total > 0) else { return };
    let mut screen = screen();
    if *screen == Screen::Free {
        *screen = Screen::Bar;
    }
    drop(screen);
    bar.set_length(total);
    bar.set_position(done.min(total));
}

/// Does something that writes to the terminal, without the bar in its way.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    match drawn() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Takes it off the screen; where the command has succeeded, it stays, as a line of its own.
pub fn end(succeeded: bool) {
    let Some(bar) = drawn() else { return };
    *screen() = Screen::Free;
    if succeeded {
        bar.set_style(style(COMPLETE));
        bar.finish();
        eprintln!();
    } else {
        bar.finish_and_clear();
    }
}

fn drawn() -> Option<&'static ProgressBar> {
    BAR.get().filter(|_| *screen() == Screen::Bar)
}

/// What takes it off the screen before a signal ends the process, if there is one.
pub fn tidy() -> Option<fn()> {
    BAR.get().map(|_| wipe as fn())
}

/// Clears the line that it is on, from another thread than that which draws it.
fn wipe() {
    const CLEAR_LINE: &[u8] = b"\r\x1b[2K";
    let mut screen = screen();
    if *screen == Screen::Bar {
        let _ = io::stderr().write_all(CLEAR_LINE);
    }
    *screen = Screen::Left;
}

/// The terminal, as it was at the start.
#[derive(Debug)]
struct Terminal {
    term: Term,
    columns: u16,
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.columns
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.term.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.term.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.term.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.term.move_cursor_left(columns)
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.term.write_line(line)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.term.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.term.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        // What was written so far comes to the screen here, and at once.
        match *screen() {
            Screen::Free | Screen::Bar => self.term.flush(),
            Screen::Left => Ok(()),
        }
    }
}
