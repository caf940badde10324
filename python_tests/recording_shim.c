// SPDX-License-Identifier: BSD-3-Clause
// Loaded before libc (LD_PRELOAD), notes in order what a process does to the files below one folder: every write with
// its bytes, every change of a name, every fsync. power_loss.py replays the notes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "shim.h"

// What a note begins with; the path, the second path and the bytes follow. power_loss.py knows its form.
struct note {
  char call[8];
  uint32_t path, second;  // their lengths
  uint64_t at, size;      // of the bytes in the file
};

static int notes = -1;
static char root[PATH_MAX];
// A call and its note are one step for all threads: so the notes have the order of the calls.
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

void recording_begin(const char *folder, int file) {
  snprintf(root, sizeof root, "%s", folder);
  notes = file;
}

// Whether a path is that of the folder or of something in it.
static int is_ours(const char *path) {
  size_t length = strlen(root);
  return notes >= 0 && path && strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

// The path of an open file that is ours; one without a name, or without one by now, is nobody's when the power is gone.
static int find_path(int file, char *path) {
  if (notes < 0) return 0;
  ssize_t length = read_path(file, path);
  const ssize_t tail = strlen(" (deleted)");
  return length >= 0 && is_ours(path) && (length < tail || strcmp(path + length - tail, " (deleted)") != 0);
}

FIND(writev)

static void note(const char *call, const char *path, const char *second, uint64_t at, const void *data, size_t size) {
  struct note head = {.path = strlen(path), .second = strlen(second), .at = at, .size = size};
  memcpy(head.call, call, strlen(call));
  struct iovec parts[] = {
      {&head, sizeof head}, {(void *)path, head.path}, {(void *)second, head.second}, {(void *)data, size}};
  if (REAL(writev)(notes, parts, 4) != (ssize_t)(sizeof head + head.path + head.second + size)) abort();
}

// Do a call whose files are ours, and note it if it went well; errno stays what the call left. `first` is done before.
#define NOTED(first, call, noting)                   \
  pthread_mutex_lock(&turn);                         \
  first;                                             \
  __typeof__(call) done = call;                      \
  int error = errno;                                 \
  if (done >= 0) noting;                             \
  pthread_mutex_unlock(&turn);                       \
  errno = error;                                     \
  return done

// Where the next bytes of a descriptor go.
static uint64_t place(int file) {
  struct stat state;
  if (fcntl(file, F_GETFL) & O_APPEND) return fstat(file, &state) ? 0 : state.st_size;
  return lseek(file, 0, SEEK_CUR);
}

FIND(write)
ssize_t write(int file, const void *data, size_t size) {
  char path[PATH_MAX];
  if (!find_path(file, path)) return REAL(write)(file, data, size);
  NOTED(uint64_t at = place(file), REAL(write)(file, data, size), note("write", path, "", at, data, done));
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  char path[PATH_MAX];
  if (!find_path(file, path) || count < 1) return REAL(writev)(file, parts, count);
  return write(file, parts[0].iov_base, parts[0].iov_len);  // as a short write: the caller goes on with the rest
}

// On an open file: a call with its arguments, and what is noted.
#define ON_FILE(type, name, arguments, parameters, noting)                  \
  FIND(name)                                                                \
  type name parameters {                                                    \
    char path[PATH_MAX];                                                    \
    if (!find_path(file, path)) return REAL(name) arguments;                \
    NOTED(, REAL(name) arguments, noting);                                  \
  }

ON_FILE(ssize_t, pwrite, (file, data, size, at), (int file, const void *data, size_t size, off_t at),
        note("write", path, "", at, data, done))
ON_FILE(ssize_t, pwrite64, (file, data, size, at), (int file, const void *data, size_t size, off64_t at),
        note("write", path, "", at, data, done))
ON_FILE(int, ftruncate, (file, size), (int file, off_t size), note("resize", path, "", size, "", 0))
ON_FILE(int, ftruncate64, (file, size), (int file, off64_t size), note("resize", path, "", size, "", 0))
ON_FILE(int, fsync, (file), (int file), note("fsync", path, "", 0, "", 0))
ON_FILE(int, fdatasync, (file), (int file), note("fsync", path, "", 0, "", 0))

// A file is made, or emptied; O_TMPFILE makes one without a name.
static void note_opening(const char *path, int flags, int was_there) {
  if ((flags & O_TMPFILE) == O_TMPFILE) return;
  if (!was_there && flags & O_CREAT) note("create", path, "", 0, "", 0);
  if (was_there && flags & O_TRUNC) note("resize", path, "", 0, "", 0);
}

#define OPENING(name, arguments, parameters)                                \
  FIND(name)                                                                \
  int name parameters {                                                     \
    va_list list;                                                           \
    va_start(list, flags);                                                  \
    mode_t mode = va_arg(list, mode_t);                                     \
    va_end(list);                                                           \
    if (!is_ours(path)) return REAL(name) arguments;                        \
    NOTED(int was_there = access(path, F_OK) == 0, REAL(name) arguments, note_opening(path, flags, was_there)); \
  }

OPENING(open, (path, flags, mode), (const char *path, int flags, ...))
OPENING(open64, (path, flags, mode), (const char *path, int flags, ...))
OPENING(openat, (folder, path, flags, mode), (int folder, const char *path, int flags, ...))
OPENING(openat64, (folder, path, flags, mode), (int folder, const char *path, int flags, ...))

// On names: absolute paths, as all are that begin with the folder's.
#define ON_NAMES(name, arguments, parameters, path, noting)                 \
  FIND(name)                                                                \
  int name parameters {                                                     \
    if (!is_ours(path)) return REAL(name) arguments;                        \
    NOTED(, REAL(name) arguments, noting);                                  \
  }

ON_NAMES(rename, (from, to), (const char *from, const char *to), from, note("rename", from, to, 0, "", 0))
ON_NAMES(renameat, (a, from, b, to), (int a, const char *from, int b, const char *to), from,
         note("rename", from, to, 0, "", 0))
ON_NAMES(link, (from, to), (const char *from, const char *to), from, note("link", from, to, 0, "", 0))
ON_NAMES(linkat, (a, from, b, to, flags), (int a, const char *from, int b, const char *to, int flags), from,
         note("link", from, to, 0, "", 0))
ON_NAMES(unlink, (path), (const char *path), path, note("unlink", path, "", 0, "", 0))
ON_NAMES(unlinkat, (a, path, flags), (int a, const char *path, int flags), path, note("unlink", path, "", 0, "", 0))
ON_NAMES(rmdir, (path), (const char *path), path, note("unlink", path, "", 0, "", 0))
ON_NAMES(mkdir, (path, mode), (const char *path, mode_t mode), path, note("mkdir", path, "", 0, "", 0))
