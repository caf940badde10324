// SPDX-License-Identifier: BSD-3-Clause
// Test-only: finds races in kernels of the host build. g++ puts a call before every load and store of a kernel
// (-fsanitize=thread, whose library is not linked: the calls end in race_check.cpp), which notes for every byte who
// read and who wrote it. Two accesses of which one writes, and not both are atomic, are a race if they come from two
// threads of a block with no barrier between them, or from two blocks of a launch. In what order they happened to run
// does not matter, so that one run finds what a GPU may show once in a thousand.
#pragma once

#include <cstddef>
#include <cstdint>

namespace twostream {

// A thread as the emulator counts them.
struct RunningThread {
  uint32_t block;
  uint32_t barriers;  // that the block has passed
  uint16_t thread;
  const char* stack;  // which no other thread touches
  size_t stack_bytes;
};

constexpr int race_status = 10000;  // no error of CUDA's

#if defined(TWOSTREAM_RACE_CHECK)

void begin_launch();
void begin_block();
void begin_accesses(const RunningThread& thread);
void end_accesses();  // what follows is the emulator's own
int end_launch();     // 0, or race_status

// `code` is where the call returns to, in the kernel.
void note_atomic(const void* address, size_t bytes, const void* code);

// One line about the race of the last launch that had one.
const char* race_words();

#else

inline void begin_launch() {}
inline void begin_block() {}
inline void begin_accesses(const RunningThread&) {}
inline void end_accesses() {}
inline int end_launch() { return 0; }
inline void note_atomic(const void*, size_t, const void*) {}
inline const char* race_words() { return ""; }

#endif

}  // namespace twostream
