// SPDX-License-Identifier: BSD-3-Clause
#include "cpu/parallel.h"

#include <dlfcn.h>

#include <atomic>

namespace {

using ParallelBody = void (*)(int64_t begin, int64_t end, void* context);

// torch's stable C shim (torch/csrc/stable/c/shim.h, torch >= 2.10). It honours torch.set_num_threads and survives
// fork, which a pool of ours would not.
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, ParallelBody body, void* context);

TorchParallelFor find_torch() {
  // RTLD_NOLOAD: only a torch that is already in the process; nothing is loaded for our sake.
  void* library = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) {
    return nullptr;
  }
  void* symbol = dlsym(library, "torch_parallel_for");
  dlclose(library);  // drops the reference that dlopen took; torch itself is never unloaded
  return reinterpret_cast<TorchParallelFor>(symbol);
}

TorchParallelFor torch_parallel_for() {
  static std::atomic<TorchParallelFor> found{nullptr};  // not cached while absent: torch may be imported later
  TorchParallelFor function = found.load(std::memory_order_relaxed);
  if (function == nullptr) {
    function = find_torch();
    found.store(function, std::memory_order_relaxed);
  }
  return function;
}

}  // namespace

void twostream_parallel_ranges(int64_t count, int64_t grain, ParallelBody body, void* context) {
  if (count <= 0) {
    return;
  }
  if (count > grain) {
    if (const TorchParallelFor torch = torch_parallel_for()) {
      torch(0, count, grain, body, context);
      return;
    }
  }
  body(0, count, context);
}
