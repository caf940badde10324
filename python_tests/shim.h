// SPDX-License-Identifier: BSD-3-Clause
// What libraries that are loaded before libc share: the functions that they stand before, and names of open files.
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real_##name())
#define FIND(name)                                   \
  static void *real_##name(void) {                   \
    static void *found;                              \
    if (!found) found = dlsym(RTLD_NEXT, #name);     \
    return found;                                    \
  }

// The path of an open file, into PATH_MAX bytes; gives its length, or -1.
static ssize_t read_path(int file, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length >= 0) path[length] = 0;
  return length;
}
