// SPDX-License-Identifier: BSD-3-Clause
// Flow stacks from raw memory: on the CPU by as many threads as you say, and on CUDA where there is a device.
//
//   stack_from_memory FLOW OUT SAMPLES LENGTH HEIGHT WIDTH SIDE THREADS SEED
//
// FLOW: float32 [SAMPLES, LENGTH, HEIGHT, WIDTH, 2], displacements in pixels, as NumPy's tofile() writes them.
// OUT:  float32 [SAMPLES, 2 LENGTH, SIDE, SIDE]: random windows, flipped or not, less the mean of each whole field.
#include <twostream/twostream.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifdef WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace {

struct Sizes {
  int64_t samples;
  int32_t length, height, width, side;

  int64_t field() const { return int64_t{2} * height * width; }  // in numbers, as all below
  int64_t flow() const { return length * field(); }
  int64_t stack() const { return int64_t{2} * length * side * side; }
};

// Where a batch lies: all of it on the host, or all of it on one device.
struct Batch {
  const float* flow;       // [samples, length, height, width, 2]
  const int32_t* windows;  // [samples, 3]: top, left, flip
  float* means;            // [samples, length, 2]
  float* stacks;           // [samples, 2 length, side, side]
};

constexpr int cpu = -1;  // in place of the number of a CUDA device

void check(int status, const char* what) {
  if (status != TWOSTREAM_SUCCESS) throw std::runtime_error(std::string(what) + ": " + twostream_status_string(status));
}

// The stacks of samples first, ..., first + count - 1.
void make_stacks(const Sizes& sizes, const Batch& batch, int64_t first, int64_t count, int device) {
  std::vector<twostream_sample> samples;
  for (int64_t number = first; number < first + count; ++number) {
    samples.push_back(
        {batch.flow + number * sizes.flow(), sizes.height, sizes.width, sizes.field(), int64_t{2} * sizes.width, 2, 1});
  }
  const twostream_batch flow{samples.data(), count, sizes.length, TWOSTREAM_FLOAT32};
  float* means = batch.means + first * 2 * sizes.length;
  const int64_t plane = int64_t{sizes.side} * sizes.side;

  twostream_mean_flow_args of_means{};
  of_means.flow = flow;
  of_means.output = means;
  twostream_flow_stack_args of_stacks{};
  of_stacks.flow = flow;
  of_stacks.windows = batch.windows + 3 * first;
  of_stacks.windows_per_sample = 1;
  of_stacks.mean = means;
  of_stacks.output = {batch.stacks + first * sizes.stack(),
                      TWOSTREAM_FLOAT32,
                      sizes.side,
                      sizes.side,
                      sizes.stack(),
                      sizes.stack(),
                      plane,
                      sizes.side,
                      1};
  if (device == cpu) {
    check(twostream_mean_flow_cpu(&of_means), "mean_flow");
    check(twostream_flow_stack_cpu(&of_stacks), "flow_stack");
  } else {
    check(twostream_mean_flow_cuda(&of_means, device, nullptr), "mean_flow");  // nullptr: the default stream
    check(twostream_flow_stack_cuda(&of_stacks, device, nullptr), "flow_stack");
  }
}

// The library has no threads of its own, and its functions may be called by any number of them at once.
void make_stacks_by_threads(const Sizes& sizes, const Batch& batch, int64_t threads) {
  std::vector<std::thread> workers;
  std::vector<std::exception_ptr> errors(threads);
  for (int64_t number = 0; number < threads; ++number) {
    workers.emplace_back([&, number] {
      const int64_t first = sizes.samples * number / threads, last = sizes.samples * (number + 1) / threads;
      try {
        if (first < last) make_stacks(sizes, batch, first, last - first, cpu);
      } catch (...) {
        errors[number] = std::current_exception();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

// The shortest of five times, in milliseconds.
double milliseconds(const std::function<void()>& work) {
  double shortest = 1e30;
  for (int time = 0; time < 5; ++time) {
    const auto started = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - started;
    shortest = std::min(shortest, taken.count());
  }
  return shortest;
}

std::vector<int32_t> draw_windows(const Sizes& sizes, uint64_t seed) {
  std::vector<int64_t> extents;
  for (int64_t number = 0; number < sizes.samples; ++number) {
    extents.insert(extents.end(), {sizes.height, sizes.width});
  }
  std::vector<int32_t> windows(3 * sizes.samples);
  twostream_random_windows_args args{};
  args.sizes = extents.data();
  args.size = sizes.samples;
  args.height = args.width = sizes.side;
  args.flip = 0.5F;
  args.seed = seed;
  args.windows = windows.data();
  check(twostream_random_windows_cpu(&args), "random_windows");
  return windows;
}

#ifdef WITH_CUDA
void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// Memory on the current device, freed at the end of its scope.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) { check_cuda(cudaMalloc(&memory_, bytes)); }
  DeviceMemory(const void* from, size_t bytes) : DeviceMemory(bytes) {
    check_cuda(cudaMemcpy(memory_, from, bytes, cudaMemcpyHostToDevice));
  }
  ~DeviceMemory() { cudaFree(memory_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
};

// The same on device 0; not yet run on a GPU.
void compare_with_cuda(const Sizes& sizes, const std::vector<float>& flow, const std::vector<int32_t>& windows,
                       const std::vector<float>& expected) {
  check_cuda(cudaSetDevice(0));
  const DeviceMemory flow_there(flow.data(), flow.size() * sizeof(float));
  const DeviceMemory windows_there(windows.data(), windows.size() * sizeof(int32_t));
  const DeviceMemory means(sizes.samples * sizes.length * 2 * sizeof(float));
  const DeviceMemory stacks(expected.size() * sizeof(float));
  const Batch batch{flow_there.as<float>(), windows_there.as<int32_t>(), means.as<float>(), stacks.as<float>()};
  const double time = milliseconds([&] {
    make_stacks(sizes, batch, 0, sizes.samples, 0);
    check_cuda(cudaDeviceSynchronize());
  });
  std::vector<float> found(expected.size());
  check_cuda(cudaMemcpy(found.data(), stacks.as<float>(), found.size() * sizeof(float), cudaMemcpyDeviceToHost));
  float most = 0;
  for (size_t place = 0; place < found.size(); ++place) most = std::max(most, std::abs(found[place] - expected[place]));
  std::printf("CUDA: %.3f ms, at most %g pixels from the CPU\n", time, most);
}
#endif

int64_t number(const char* name, const char* text, int64_t least, int64_t most) {
  int64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stopped != end || value < least || value > most) {
    throw std::runtime_error(std::string(name) + " is '" + text + "', expected a number from " + std::to_string(least) +
                             " to " + std::to_string(most));
  }
  return value;
}

std::vector<float> read_flow(const char* path, const Sizes& sizes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string(path) + ": cannot be read");
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  const int64_t wanted = sizes.samples * sizes.flow() * static_cast<int64_t>(sizeof(float));
  if (bytes != wanted) {
    throw std::runtime_error(std::string(path) + ": has " + std::to_string(bytes) + " bytes, expected " +
                             std::to_string(wanted));
  }
  std::vector<float> flow(sizes.samples * sizes.flow());
  file.read(reinterpret_cast<char*>(flow.data()), bytes);
  if (!file) throw std::runtime_error(std::string(path) + ": cannot be read");
  return flow;
}

void write_stacks(const char* path, const std::vector<float>& stacks) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(stacks.data()), static_cast<std::streamsize>(stacks.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error(std::string(path) + ": cannot be written");
}

void run(char** arguments) {
  constexpr int64_t most = 1 << 15;  // so that no product of sizes overflows
  Sizes sizes{};
  sizes.samples = number("SAMPLES", arguments[3], 1, most);
  sizes.length = static_cast<int32_t>(number("LENGTH", arguments[4], 1, 1024));
  sizes.height = static_cast<int32_t>(number("HEIGHT", arguments[5], 1, most));
  sizes.width = static_cast<int32_t>(number("WIDTH", arguments[6], 1, most));
  sizes.side = static_cast<int32_t>(number("SIDE", arguments[7], 1, std::min(sizes.height, sizes.width)));
  const int64_t threads = number("THREADS", arguments[8], 1, 1024);
  const auto seed = static_cast<uint64_t>(number("SEED", arguments[9], 0, INT64_MAX));

  const std::vector<float> flow = read_flow(arguments[1], sizes);
  const std::vector<int32_t> windows = draw_windows(sizes, seed);
  std::vector<float> means(sizes.samples * sizes.length * 2);
  std::vector<float> stacks(sizes.samples * sizes.stack());
  const Batch batch{flow.data(), windows.data(), means.data(), stacks.data()};

  std::printf("twostream_ext %s, %s\n", twostream_version(), twostream_cpu_isa());
  const double alone = milliseconds([&] { make_stacks(sizes, batch, 0, sizes.samples, cpu); });
  std::printf("1 thread: %.3f ms\n", alone);
  const double together = milliseconds([&] { make_stacks_by_threads(sizes, batch, threads); });
  std::printf("%lld threads: %.3f ms\n", static_cast<long long>(threads), together);
  write_stacks(arguments[2], stacks);
#ifdef WITH_CUDA
  if (twostream_cuda_device_count() > 0) compare_with_cuda(sizes, flow, windows, stacks);
#endif
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 10) {
    std::fprintf(stderr, "usage: stack_from_memory FLOW OUT SAMPLES LENGTH HEIGHT WIDTH SIDE THREADS SEED\n");
    return 2;
  }
  try {
    run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stack_from_memory: %s\n", error.what());
    return 1;
  }
  return 0;
}
