// Stands between a process under test and the system: moves its clock, and at a chosen call that changes
// its data directory ends it or lets the call fail. Told what to do through a file in shared memory.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// The layout is known to shim.rs.
struct control {
    int64_t clock_ms;   // added to the wall clock
    uint64_t kinds;     // which calls count
    uint64_t seen;      // how many there were
    uint64_t at;        // which one is the chosen one
    uint64_t action;    // what happens then
    char part[32];      // only calls on paths with this in them count
};

enum { WRITE = 1, SYNC = 2, NAME = 4 };
enum { GO, KILL_BEFORE, KILL_WITHIN, FAIL };

static struct control *control;
static const char *directory;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIM_CONTROL");
    directory = getenv("SHIM_DIRECTORY");
    int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0 || !directory) abort();
    control = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) abort();
}

static void die(void) {
    for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

// What to do with the call that is about to be made.
static int turn(uint64_t kind, const char *path) {
    if (!control || !(__atomic_load_n(&control->kinds, __ATOMIC_SEQ_CST) & kind)) return GO;
    size_t below = strlen(directory);
    if (strncmp(path, directory, below) || !strstr(path + below, control->part)) return GO;
    uint64_t seen = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (seen != __atomic_load_n(&control->at, __ATOMIC_SEQ_CST)) return GO;
    int action = (int)control->action;
    if (action == KILL_BEFORE) die();
    return action;
}

static int turn_of(uint64_t kind, int fd) {
    if (!control || !(__atomic_load_n(&control->kinds, __ATOMIC_SEQ_CST) & kind)) return GO;
    char link[32] = "/proc/self/fd/", digits[12], path[PATH_MAX];
    int at = 0, to = 14;
    do digits[at++] = '0' + fd % 10; while (fd /= 10);
    while (at) link[to++] = digits[--at];
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return turn(kind, path);
}

// The call itself, unless it is the chosen one. `half` is what a write does before the end.
#define MEDIATE(action, half, call) \
    do { \
        int what = (action); \
        if (what == FAIL) { errno = EIO; return -1; } \
        if (what == KILL_WITHIN) { half; die(); } \
        return call; \
    } while (0)

ssize_t write(int fd, const void *from, size_t count) {
    MEDIATE(turn_of(WRITE, fd), syscall(SYS_write, fd, from, count / 2), syscall(SYS_write, fd, from, count));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    MEDIATE(turn_of(WRITE, fd), syscall(SYS_write, fd, parts->iov_base, parts->iov_len / 2),
            syscall(SYS_writev, fd, parts, count));
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    MEDIATE(turn_of(WRITE, fd), syscall(SYS_pwrite64, fd, from, count / 2, at),
            syscall(SYS_pwrite64, fd, from, count, at));
}

int ftruncate64(int fd, off64_t length) {
    MEDIATE(turn_of(WRITE, fd), syscall(SYS_ftruncate, fd, length), syscall(SYS_ftruncate, fd, length));
}

int fdatasync(int fd) {
    MEDIATE(turn_of(SYNC, fd), syscall(SYS_fdatasync, fd), syscall(SYS_fdatasync, fd));
}

int fsync(int fd) {
    MEDIATE(turn_of(SYNC, fd), syscall(SYS_fsync, fd), syscall(SYS_fsync, fd));
}

int rename(const char *from, const char *to) {
    MEDIATE(turn(NAME, to), syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0),
            syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char *path) {
    MEDIATE(turn(NAME, path), syscall(SYS_unlinkat, AT_FDCWD, path, 0), syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

int mkdir(const char *path, mode_t mode) {
    MEDIATE(turn(NAME, path), syscall(SYS_mkdirat, AT_FDCWD, path, mode), syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    MEDIATE(flags & (O_CREAT | O_TRUNC) ? turn(NAME, path) : GO, syscall(SYS_openat, AT_FDCWD, path, flags, mode),
            syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && control) {
        int64_t ms = __atomic_load_n(&control->clock_ms, __ATOMIC_SEQ_CST);
        int64_t ns = now->tv_nsec + ms % 1000 * 1000000;
        now->tv_sec += ms / 1000 + (ns >= 1000000000) - (ns < 0);
        now->tv_nsec = (ns + 1000000000) % 1000000000;
    }
    return failed;
}
