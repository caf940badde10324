// SPDX-License-Identifier: BSD-3-Clause
// Under AddressSanitizer the fibers need no annotation: its swapcontext (which warns once, by default) forgets the red
// zones on the stack it switches to, so that nothing is reported falsely, and a kernel's own arrays go unchecked from
// its first barrier on. Heap (the tensors) and statics (the shared arrays) are checked throughout; no fiber throws.
#include "cuda/host/cuda_on_host.h"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace twostream {
namespace {

constexpr size_t stack_bytes = 64 * 1024;

enum class State { ready, waiting, finished };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  dim3 index;
  State state;
};

ucontext_t scheduler;
Fiber* current = nullptr;
void (*thread_body)(void*) = nullptr;
void* thread_context = nullptr;

void enter() {
  thread_body(thread_context);
  current->state = State::finished;
  swapcontext(&current->context, &scheduler);
}

void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  swapcontext(&scheduler, &fiber.context);
}

void start(Fiber& fiber, dim3 index) {
  fiber.index = index;
  fiber.state = State::ready;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
}

// Runs every thread to its next barrier or its end, and counts those that wait.
size_t run_to_barrier(std::vector<Fiber>& fibers, bool backwards) {
  size_t waiting = 0;
  for (size_t step = 0; step < fibers.size(); ++step) {
    Fiber& fiber = fibers[backwards ? fibers.size() - 1 - step : step];
    if (fiber.state == State::ready) {
      resume(fiber);
    }
    waiting += fiber.state == State::waiting;
  }
  return waiting;
}

void run_block(std::vector<Fiber>& fibers) {
  size_t next = 0;
  for (unsigned int z = 0; z < blockDim.z; ++z) {
    for (unsigned int y = 0; y < blockDim.y; ++y) {
      for (unsigned int x = 0; x < blockDim.x; ++x) {
        start(fibers[next++], dim3(x, y, z));
      }
    }
  }
  // Half of the blocks begin at their last thread: a missing barrier may show in one order alone.
  bool backwards = (blockIdx.x + blockIdx.y + blockIdx.z) % 2 != 0;
  while (const size_t waiting = run_to_barrier(fibers, backwards)) {
    if (waiting != fibers.size()) {
      std::fprintf(stderr, "cuda_on_host: %zu of %zu threads wait at a barrier that the others have left\n", waiting,
                   fibers.size());
      std::abort();
    }
    for (Fiber& fiber : fibers) {
      fiber.state = State::ready;
    }
    backwards = !backwards;
  }
}

}  // namespace

int run_grid(dim3 grid, dim3 block, void (*thread)(void*), void* context) {
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || threads == 0 || threads > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  static std::vector<Fiber> fibers;
  fibers.resize(threads);
  thread_body = thread;
  thread_context = context;
  gridDim = grid;
  blockDim = block;
  for (unsigned int z = 0; z < grid.z; ++z) {
    for (unsigned int y = 0; y < grid.y; ++y) {
      for (unsigned int x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block(fibers);
      }
    }
  }
  return cudaSuccess;
}

}  // namespace twostream

void __syncthreads() {
  twostream::current->state = twostream::State::waiting;
  swapcontext(&twostream::current->context, &twostream::scheduler);
}
