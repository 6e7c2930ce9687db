/* A library to preload: to the program processor time goes a thousand times as fast. qemu-img counts how far it comes with the
 * derivation of a key in half a second of it, twice for each encrypted image that it makes. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int getrusage(__rusage_who_t who, struct rusage *usage)
{
    int failed = (int)syscall(SYS_getrusage, who, usage);
    struct timeval *user = &usage->ru_utime;
    if (!failed) {
        user->tv_sec = user->tv_sec * 1000 + user->tv_usec / 1000;
        user->tv_usec = user->tv_usec % 1000 * 1000;
    }
    return failed;
}
