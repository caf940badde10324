// SPDX-License-Identifier: BSD-3-Clause
// Under AddressSanitizer the fibers need no annotation: its swapcontext (which warns once, by default) forgets the red
// zones on the stack it switches to, so that nothing is reported falsely, and a kernel's own arrays go unchecked from
// its first barrier on. Heap (the tensors) and statics (the shared arrays) are checked throughout; no fiber throws.
#include "cuda/host/cuda_on_host.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "cuda/host/race_check.h"

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

// In which order the blocks and, from barrier to barrier, their threads run: forwards and backwards by turns (a missing
// barrier may show in one order alone), or shuffled where TWOSTREAM_SHUFFLE gives a seed.
class Order {
 public:
  explicit Order(uint32_t threads) : threads_(numbered(threads)) {
    if (const char* seed = std::getenv("TWOSTREAM_SHUFFLE")) {
      shuffle_.emplace(static_cast<uint32_t>(std::strtoul(seed, nullptr, 10)));
    }
  }

  std::vector<uint32_t> blocks(uint32_t count) {
    std::vector<uint32_t> order = numbered(count);
    if (shuffle_) {
      std::shuffle(order.begin(), order.end(), *shuffle_);
    }
    return order;
  }

  // Of a block, whose `turn` grows from barrier to barrier.
  const std::vector<uint32_t>& threads(uint32_t turn) {
    if (shuffle_) {
      std::shuffle(threads_.begin(), threads_.end(), *shuffle_);
    } else if ((turn % 2 != 0) == (threads_.front() == 0)) {
      std::reverse(threads_.begin(), threads_.end());
    }
    return threads_;
  }

 private:
  static std::vector<uint32_t> numbered(uint32_t count) {
    std::vector<uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0U);
    return order;
  }

  std::vector<uint32_t> threads_;
  std::optional<std::minstd_rand> shuffle_;
};

dim3 index_in(uint32_t number, const dim3& extent) {
  return dim3(number % extent.x, number / extent.x % extent.y, number / extent.x / extent.y);
}

// Runs every thread to its next barrier or its end, and counts those that wait.
size_t run_to_barrier(std::vector<Fiber>& fibers, const std::vector<uint32_t>& order, uint32_t block,
                      uint32_t barriers) {
  size_t waiting = 0;
  for (const uint32_t thread : order) {
    Fiber& fiber = fibers[thread];
    if (fiber.state == State::ready) {
      begin_accesses({block, barriers, static_cast<uint16_t>(thread), fiber.stack.get(), stack_bytes});
      resume(fiber);
      end_accesses();
    }
    waiting += fiber.state == State::waiting;
  }
  return waiting;
}

void run_block(std::vector<Fiber>& fibers, uint32_t block, Order& order) {
  for (uint32_t thread = 0; thread < fibers.size(); ++thread) {
    start(fibers[thread], index_in(thread, blockDim));
  }
  begin_block();
  uint32_t barriers = 0;
  while (const size_t waiting = run_to_barrier(fibers, order.threads(block + barriers), block, barriers)) {
    if (waiting != fibers.size()) {
      std::fprintf(stderr, "cuda_on_host: %zu of %zu threads wait at a barrier that the others have left\n", waiting,
                   fibers.size());
      std::abort();
    }
    for (Fiber& fiber : fibers) {
      fiber.state = State::ready;
    }
    ++barriers;
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
  Order order(static_cast<uint32_t>(threads));
  begin_launch();
  for (const uint32_t each : order.blocks(grid.x * grid.y * grid.z)) {
    blockIdx = index_in(each, grid);
    run_block(fibers, each, order);
  }
  return end_launch();
}

}  // namespace twostream

void __syncthreads() {
  twostream::current->state = twostream::State::waiting;
  swapcontext(&twostream::current->context, &twostream::scheduler);
}

unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  twostream::note_atomic(address, sizeof(value), __builtin_return_address(0));
  const unsigned long long before = *address;
  *address += value;
  return before;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case twostream::race_status:
      return twostream::race_words();
    default:
      return "cudaErrorUnknown";
  }
}
