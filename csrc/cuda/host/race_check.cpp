// SPDX-License-Identifier: BSD-3-Clause
#include "cuda/host/race_check.h"

#include <dlfcn.h>
#include <pthread.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/host/cuda_on_host.h"

// Where the linker puts the statics of this module, of which kernels have none but __shared__ arrays.
extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];

namespace twostream {
namespace {

constexpr uint32_t no_block = std::numeric_limits<uint32_t>::max();
constexpr uint16_t no_thread = std::numeric_limits<uint16_t>::max();

enum class Kind { read, write, atomic };

struct Access {
  uint32_t scope;  // within which accesses can race: a launch, or for shared memory a block
  Kind kind;
  const void* code;
};

// All reads, or all writes, of a byte in one scope, in constant size (as HiRace does it, arXiv 2401.04701): the last
// one, and one of another thread since the last barrier and one of another block, if there are any. Whoever comes next
// conflicts with one of these if it conflicts with any.
struct Accesses {
  uint32_t scope;  // 0: none yet
  uint32_t block;
  uint32_t stretch;  // of the block's time, from barrier to barrier
  uint32_t other_block;
  uint16_t thread;
  uint16_t other_thread;
  bool atomic_in_stretch;
  bool atomic_in_scope;
  const void* code;  // of the last
};

struct Byte {
  Accesses reads;
  Accesses writes;
};

constexpr uintptr_t page_bytes = 4096;

struct Page {
  Byte bytes[page_bytes];
};

// What was noted in an earlier scope counts as nothing, so that pages serve again without being cleared.
struct Notes {
  std::vector<std::unique_ptr<Page>> pages;
  size_t used = 0;
  std::unordered_map<uintptr_t, Page*> by_number;
  uintptr_t last_number = 0;
  Page* last = nullptr;

  void forget() {
    used = 0;
    by_number.clear();
    last = nullptr;
  }

  Byte& at(uintptr_t address) {
    const uintptr_t number = address / page_bytes;
    if (last == nullptr || number != last_number) {
      Page*& page = by_number[number];
      if (page == nullptr) {
        if (used == pages.size()) {
          pages.push_back(std::make_unique<Page>());
        }
        page = pages[used++].get();
      }
      last_number = number;
      last = page;
    }
    return last->bytes[address % page_bytes];
  }
};

Notes notes;
uint32_t scopes = 0;
uint32_t launch_scope = 0;
uint32_t block_scope = 0;
RunningThread running{};
bool looking = false;
bool found = false;  // in this launch; what follows in it is not looked at
std::string report;

struct Range {
  uintptr_t first;
  uintptr_t bytes;

  bool holds(uintptr_t address) const { return address - first < bytes; }
};

Range stack_of_this_thread() {
  pthread_attr_t attributes;
  void* first = nullptr;
  size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &first, &bytes);
    pthread_attr_destroy(&attributes);
  }
  return {reinterpret_cast<uintptr_t>(first), bytes};
}

// The arguments of a launch, which every thread gets by value.
const Range& launching_stack() {
  thread_local const Range stack = stack_of_this_thread();
  return stack;
}

Range shared_memory() {
  const auto first = reinterpret_cast<uintptr_t>(__bss_start);
  return {first, reinterpret_cast<uintptr_t>(_end) - first};
}

bool is_own(uintptr_t address) {
  const Range own{reinterpret_cast<uintptr_t>(running.stack), running.stack_bytes};
  return own.holds(address) || launching_stack().holds(address);
}

struct Other {
  uint32_t block;
  uint16_t thread;   // or no_thread
  const void* code;  // or nullptr
};

bool conflict(const Accesses& earlier, const Access& now, Other& other) {
  if (earlier.scope != now.scope) {
    return false;
  }
  const bool atomic = now.kind == Kind::atomic;
  if (!(atomic && earlier.atomic_in_scope)) {
    if (earlier.block != running.block) {
      other = {earlier.block, earlier.thread, earlier.code};
      return true;
    }
    if (earlier.other_block != no_block) {
      other = {earlier.other_block, no_thread, nullptr};
      return true;
    }
  }
  if (earlier.block != running.block || earlier.stretch != running.barriers || (atomic && earlier.atomic_in_stretch)) {
    return false;
  }
  if (earlier.thread != running.thread) {
    other = {earlier.block, earlier.thread, earlier.code};
    return true;
  }
  other = {earlier.block, earlier.other_thread, nullptr};
  return earlier.other_thread != no_thread;
}

void add(Accesses& earlier, const Access& now) {
  const bool atomic = now.kind == Kind::atomic;
  const bool same_scope = earlier.scope == now.scope;
  const bool same_block = same_scope && earlier.block == running.block;
  const bool same_stretch = same_block && earlier.stretch == running.barriers;
  const bool same_thread = same_stretch && earlier.thread == running.thread;
  uint32_t other_block = no_block;
  if (same_scope) {
    other_block = same_block ? earlier.other_block : earlier.block;
  }
  uint16_t other_thread = no_thread;
  if (same_stretch) {
    other_thread = same_thread ? earlier.other_thread : earlier.thread;
  }
  earlier = {now.scope,
             running.block,
             running.barriers,
             other_block,
             running.thread,
             other_thread,
             atomic && (!same_stretch || earlier.atomic_in_stretch),
             atomic && (!same_scope || earlier.atomic_in_scope),
             now.code};
}

// ---- the report ----------------------------------------------------------------------------------------------------

std::string output_of(const std::string& command) {
  std::string output;
  if (FILE* pipe = popen(command.c_str(), "r")) {
    char part[4096];
    while (const size_t count = std::fread(part, 1, sizeof(part), pipe)) {
      output.append(part, count);
    }
    pclose(pipe);
  }
  return output;
}

// The lines of addr2line for the call that returns to `code`: function and place by turns, the innermost first.
std::vector<std::string> lines_of(const void* code) {
  Dl_info module{};
  if (code == nullptr || dladdr(code, &module) == 0) {
    return {};
  }
  const auto offset = reinterpret_cast<uintptr_t>(code) - 1 - reinterpret_cast<uintptr_t>(module.dli_fbase);
  char command[4096];
  std::snprintf(command, sizeof(command), "addr2line -Cfi -e '%s' 0x%zx 2>/dev/null", module.dli_fname, offset);
  std::vector<std::string> lines;
  std::string line;
  for (const char each : output_of(command)) {
    if (each == '\n') {
      lines.push_back(line);
      line.clear();
    } else {
      line += each;
    }
  }
  return lines;
}

// The innermost place in our own sources.
std::string place_of(const std::vector<std::string>& lines) {
  for (size_t index = 1; index < lines.size(); index += 2) {
    const size_t start = lines[index].find("csrc/");
    if (start != std::string::npos) {
      return " at " + lines[index].substr(start);
    }
  }
  return "";
}

std::string kernel_of(const std::vector<std::string>& lines) {
  return lines.size() < 2 ? "a kernel" : lines[lines.size() - 2];
}

std::string index_words(uint64_t number, const dim3& extent) {
  const auto x = static_cast<unsigned int>(number % extent.x);
  const auto y = static_cast<unsigned int>(number / extent.x % extent.y);
  const auto z = static_cast<unsigned int>(number / extent.x / extent.y);
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

std::string thread_words(uint32_t block, uint16_t thread) {
  const std::string words = "block " + index_words(block, gridDim);
  return thread == no_thread ? words : words + " thread " + index_words(thread, blockDim);
}

std::string words_of(const Access& now, uintptr_t address, const std::string& earlier, const Other& other) {
  const std::vector<std::string> lines = lines_of(now.code);
  char place[64];
  std::snprintf(place, sizeof(place), "%s memory at 0x%zx", now.scope == block_scope ? "shared" : "global", address);
  const bool same_block = other.block == running.block;
  return "race in " + kernel_of(lines) + ", " + place + ": " + thread_words(running.block, running.thread) + " " +
         (now.kind == Kind::read ? "reads" : "writes") + place_of(lines) + ", " +
         thread_words(other.block, other.thread) + " " + earlier + place_of(lines_of(other.code)) +
         (same_block ? ", with no barrier between" : ", in the same launch");
}

// ---- every access --------------------------------------------------------------------------------------------------

void note(const void* pointer, size_t bytes, Kind kind, const void* code) {
  if (!looking || found) {
    return;
  }
  const auto first = reinterpret_cast<uintptr_t>(pointer);
  if (is_own(first)) {
    return;
  }
  static const Range shared = shared_memory();
  const Access now{shared.holds(first) ? block_scope : launch_scope, kind, code};
  for (uintptr_t address = first; address < first + bytes; ++address) {
    Byte& byte = notes.at(address);
    Other other{};
    const bool with_write = conflict(byte.writes, now, other);
    if (with_write || (kind != Kind::read && conflict(byte.reads, now, other))) {
      found = true;
      report = words_of(now, address, with_write ? "writes" : "reads", other);
      return;
    }
    add(kind == Kind::read ? byte.reads : byte.writes, now);
  }
}

}  // namespace

void begin_launch() {
  notes.forget();
  launch_scope = ++scopes;
  found = false;
}

void begin_block() { block_scope = ++scopes; }

void begin_accesses(const RunningThread& thread) {
  running = thread;
  looking = true;
}

void end_accesses() { looking = false; }

int end_launch() { return found ? race_status : 0; }

void note_atomic(const void* address, size_t bytes, const void* code) { note(address, bytes, Kind::atomic, code); }

const char* race_words() { return report.c_str(); }

}  // namespace twostream

// ---- what g++ calls ------------------------------------------------------------------------------------------------

#define TWOSTREAM_HOOKS(bytes)                                                            \
  void __tsan_read##bytes(const void* address) {                                          \
    twostream::note(address, bytes, twostream::Kind::read, __builtin_return_address(0));  \
  }                                                                                       \
  void __tsan_write##bytes(const void* address) {                                         \
    twostream::note(address, bytes, twostream::Kind::write, __builtin_return_address(0)); \
  }

extern "C" {
TWOSTREAM_HOOKS(1)
TWOSTREAM_HOOKS(2)
TWOSTREAM_HOOKS(4)
TWOSTREAM_HOOKS(8)
TWOSTREAM_HOOKS(16)

void __tsan_read_range(const void* address, size_t bytes) {
  twostream::note(address, bytes, twostream::Kind::read, __builtin_return_address(0));
}

void __tsan_write_range(const void* address, size_t bytes) {
  twostream::note(address, bytes, twostream::Kind::write, __builtin_return_address(0));
}

void __tsan_init() {}
}
