// SPDX-License-Identifier: BSD-3-Clause
// Loaded before libc (LD_PRELOAD), lets the n-th call of one kind fail: only for files below one folder, and, of
// allocations, only for large ones. What fails is chosen by faults_arm, from the process itself.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "shim.h"

enum kind { NONE, WRITE, READ, OPEN, RENAME, FSYNC, MKDIR, LINK, UNLINK, ALLOCATE };
enum manner { FAILS = 0, IS_SHORT = 1 };

static enum kind armed_kind;
static enum manner armed_manner;
static int armed_error;
static long armed_at;
static size_t smallest_allocation;
static int report;  // where to write whose allocation was refused
static char root[PATH_MAX];
static _Atomic long calls;  // of the armed kind, since faults_arm

void faults_arm(const char *folder, int kind, int manner, int error, long at, size_t smallest,
                int to) {
  snprintf(root, sizeof root, "%s", folder);
  armed_manner = manner;
  armed_error = error;
  armed_at = at;
  smallest_allocation = smallest;
  report = to;
  calls = 0;
  armed_kind = kind;
}

long faults_count(void) { return calls; }

static int is_ours(const char *path) { return strncmp(path, root, strlen(root)) == 0; }

// Whether this call is the one that fails.
static int strikes(enum kind kind) { return kind == armed_kind && atomic_fetch_add(&calls, 1) + 1 == armed_at; }

static int strikes_path(enum kind kind, const char *path) {
  return kind == armed_kind && path && is_ours(path) && strikes(kind);
}

static int strikes_file(enum kind kind, int file) {
  char path[PATH_MAX];
  return kind == armed_kind && read_path(file, path) >= 0 && is_ours(path) && strikes(kind);
}

static int fail(void) {
  errno = armed_error;
  return -1;
}

#define TRANSFER(kind, name, arguments, parameters, size, shorter)            \
  FIND(name)                                                                  \
  ssize_t name parameters {                                                   \
    if (strikes_file(kind, file)) {                                           \
      if (armed_manner == FAILS) return fail();                               \
      if ((size) > 1) return REAL(name) shorter;                              \
    }                                                                         \
    return REAL(name) arguments;                                              \
  }

TRANSFER(WRITE, write, (file, data, size), (int file, const void *data, size_t size), size, (file, data, size / 2))
TRANSFER(READ, read, (file, data, size), (int file, void *data, size_t size), size, (file, data, size / 2))
TRANSFER(WRITE, pwrite64, (file, data, size, at), (int file, const void *data, size_t size, off64_t at), size,
         (file, data, size / 2, at))
TRANSFER(READ, pread64, (file, data, size, at), (int file, void *data, size_t size, off64_t at), size,
         (file, data, size / 2, at))
TRANSFER(WRITE, pwrite, (file, data, size, at), (int file, const void *data, size_t size, off_t at), size,
         (file, data, size / 2, at))
TRANSFER(READ, pread, (file, data, size, at), (int file, void *data, size_t size, off_t at), size,
         (file, data, size / 2, at))
TRANSFER(WRITE, writev, (file, parts, count), (int file, const struct iovec *parts, int count), count,
         (file, parts, count - 1))
TRANSFER(READ, readv, (file, parts, count), (int file, const struct iovec *parts, int count), count,
         (file, parts, count - 1))
TRANSFER(READ, preadv64, (file, parts, count, at), (int file, const struct iovec *parts, int count, off64_t at), count,
         (file, parts, count - 1, at))
TRANSFER(READ, preadv, (file, parts, count, at), (int file, const struct iovec *parts, int count, off_t at), count,
         (file, parts, count - 1, at))

#define OPENING(name)                                            \
  FIND(name)                                                     \
  int name(const char *path, int flags, ...) {                   \
    va_list list;                                                \
    va_start(list, flags);                                       \
    mode_t mode = va_arg(list, mode_t);                          \
    va_end(list);                                                \
    if (strikes_path(OPEN, path)) return fail();                 \
    return REAL(name)(path, flags, mode);                        \
  }

OPENING(open)
OPENING(open64)

#define OPENING_AT(name)                                         \
  FIND(name)                                                     \
  int name(int folder, const char *path, int flags, ...) {       \
    va_list list;                                                \
    va_start(list, flags);                                       \
    mode_t mode = va_arg(list, mode_t);                          \
    va_end(list);                                                \
    if (strikes_path(OPEN, path)) return fail();                 \
    return REAL(name)(folder, path, flags, mode);                \
  }

OPENING_AT(openat)
OPENING_AT(openat64)

#define OPENING_STREAM(name)                                     \
  FIND(name)                                                     \
  FILE *name(const char *path, const char *mode) {               \
    if (!strikes_path(OPEN, path)) return REAL(name)(path, mode);\
    fail();                                                      \
    return NULL;                                                 \
  }

OPENING_STREAM(fopen)
OPENING_STREAM(fopen64)

#define ON_PATH(kind, name, arguments, parameters, path)         \
  FIND(name)                                                     \
  int name parameters { return strikes_path(kind, path) ? fail() : REAL(name) arguments; }

ON_PATH(RENAME, rename, (from, to), (const char *from, const char *to), from)
ON_PATH(RENAME, renameat, (a, from, b, to), (int a, const char *from, int b, const char *to), from)
ON_PATH(MKDIR, mkdir, (path, mode), (const char *path, mode_t mode), path)
ON_PATH(LINK, link, (from, to), (const char *from, const char *to), from)
ON_PATH(LINK, linkat, (a, from, b, to, flags), (int a, const char *from, int b, const char *to, int flags), from)
ON_PATH(UNLINK, unlink, (path), (const char *path), path)
ON_PATH(UNLINK, unlinkat, (folder, path, flags), (int folder, const char *path, int flags), path)

#define ON_FILE(kind, name)                                      \
  FIND(name)                                                     \
  int name(int file) { return strikes_file(kind, file) ? fail() : REAL(name)(file); }

ON_FILE(FSYNC, fsync)
ON_FILE(FSYNC, fdatasync)

// libc's own names: dlsym allocates before it could have found malloc.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

// Who is refused is told at once: what does not look at the result does not live to tell.
static int is_refused(size_t size, void *caller) {
  if (armed_kind != ALLOCATE || size < smallest_allocation || !strikes(ALLOCATE)) return 0;
  Dl_info library;
  if (dladdr(caller, &library)) dprintf(report, "%s\n", library.dli_fname);
  errno = ENOMEM;
  return 1;
}

#define IS_REFUSED(size) is_refused(size, __builtin_return_address(0))

void *malloc(size_t size) { return IS_REFUSED(size) ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return IS_REFUSED(count * size) ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return IS_REFUSED(size) ? NULL : __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { return IS_REFUSED(size) ? NULL : __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) {
  return IS_REFUSED(size) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  if (IS_REFUSED(size)) return ENOMEM;
  *result = __libc_memalign(alignment, size);
  return *result ? 0 : ENOMEM;
}

FIND(mmap)
void *mmap(void *address, size_t size, int protection, int flags, int file, off_t at) {
  if ((flags & MAP_ANONYMOUS) && IS_REFUSED(size)) return MAP_FAILED;
  return REAL(mmap)(address, size, protection, flags, file, at);
}
