//! instar
