// SPDX-License-Identifier: BSD-3-Clause
// Calls the operators of the C API on made numbers, for benchmarks/guard.py to count their instructions: each once
// unseen, for what a first call does besides, and once inside `counted`. Prints the instruction set, then a name a
// call.
#include <twostream/twostream.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "moving_picture.h"

extern "C" __attribute__((noinline)) int counted(const std::function<int()>& call) { return call(); }

namespace {

constexpr int32_t samples = 2, length = 4, height = 72, width = 256, window_height = 64, window_width = 224;
constexpr int64_t fields = samples * length, pixels = int64_t{height} * width;
constexpr int64_t plane = int64_t{window_height} * window_width;

enum Layout { planar, interleaved };

uint64_t state = 88172645463325252ull;
std::string wanted;

uint32_t next_word() {  // xorshift
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<uint32_t>(state >> 16);
}

std::vector<float> numbers(int64_t count, float from, float to) {
  std::vector<float> made(static_cast<size_t>(count));
  for (float& each : made) each = from + (to - from) * (static_cast<float>(next_word() >> 8) / 16777216.0f);
  return made;
}

// Memory for any dtype.
std::vector<float> room_for(int64_t values) { return std::vector<float>(static_cast<size_t>(values)); }

void count(const std::string& name, const std::function<int()>& call) {
  if (name.compare(0, wanted.size(), wanted) != 0) return;
  for (const int status : {call(), counted(call)}) {
    if (status != TWOSTREAM_SUCCESS) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), twostream_status_string(status));
      std::exit(1);
    }
  }
  std::puts(name.c_str());
}

template <typename T>
std::vector<twostream_sample> fields_in(const std::vector<T>& data, Layout layout) {
  std::vector<twostream_sample> made;
  for (int32_t n = 0; n < samples; ++n) {
    const T* start = data.data() + n * length * 2 * pixels;
    made.push_back(layout == planar ? twostream_sample{start, height, width, 2 * pixels, width, 1, pixels}
                                    : twostream_sample{start, height, width, 2 * pixels, 2 * width, 2, 1});
  }
  return made;
}

// [samples, channels, height, width] of the windows, one a sample.
twostream_stack stack_in(std::vector<float>& out, int32_t channels, twostream_dtype dtype = TWOSTREAM_FLOAT32,
                         bool channels_last = false) {
  out = room_for(samples * channels * plane);
  return channels_last
             ? twostream_stack{out.data(),
                               dtype,
                               window_height,
                               window_width,
                               channels * plane,
                               channels * plane,
                               1,
                               int64_t{channels} * window_width,
                               channels}
             : twostream_stack{
                   out.data(),   dtype, window_height, window_width, channels * plane, channels * plane, plane,
                   window_width, 1};
}

// So large that its stores pass the cache.
void count_streamed(const twostream_batch& codes, const float* lo, const float* step, const float* mean) {
  constexpr int32_t windows = 32;
  std::vector<int32_t> places;
  for (int32_t each = 0; each < samples * windows; ++each) places.insert(places.end(), {each % 8, each % 32, each % 2});
  std::vector<float> out = room_for(samples * windows * 2 * length * plane);
  const twostream_flow_stack_args args{codes,
                                       places.data(),
                                       windows,
                                       lo,
                                       step,
                                       mean,
                                       {out.data(), TWOSTREAM_FLOAT32, window_height, window_width,
                                        windows * 2 * length * plane, 2 * length * plane, plane, window_width, 1},
                                       nullptr};
  count("flow_stack, codes, planar, 29 MB", [&] { return twostream_flow_stack_cpu(&args); });
}

void count_responses(const std::vector<float>& flow) {
  for (const int32_t channels_last : {0, 1}) {
    const std::string kind = channels_last ? ", channels last" : "";
    const twostream_response_shape shape{2, 32, 2048, channels_last, TWOSTREAM_FLOAT32};
    const twostream_response_constants constants{5, 5e-4f, 0.75f, 2.0f};
    std::vector<float> out = room_for(shape.samples * shape.channels * shape.pixels);
    const twostream_local_response_norm_args args{shape, constants, flow.data(), out.data()};
    count("local_response_norm" + kind, [&] { return twostream_local_response_norm_cpu(&args); });
    const twostream_local_response_norm_backward_args back{shape, constants, flow.data(), flow.data(), out.data()};
    count("local_response_norm, gradient" + kind, [&] { return twostream_local_response_norm_backward_cpu(&back); });
  }
}

void count_windows() {
  constexpr int64_t frames = 20000;
  std::vector<int64_t> sizes;
  for (int64_t n = 0; n < 2 * frames; ++n) sizes.push_back(240 + n % 100);
  std::vector<int32_t> drawn(static_cast<size_t>(frames * 30));
  const twostream_random_windows_args random{sizes.data(), frames, 224, 224, 0.5f, 7, 1234567890123, drawn.data()};
  count("random_windows", [&] { return twostream_random_windows_cpu(&random); });
  const twostream_ten_crop_windows_args ten{sizes.data(), frames, 224, 224, drawn.data()};
  count("ten_crop_windows", [&] { return twostream_ten_crop_windows_cpu(&ten); });
}

void count_tvl1() {
  const std::vector<float> grey = moving_picture(height, width);
  const int32_t pair[] = {0, 1};
  std::vector<float> out = room_for(2 * pixels);
  struct Kind {
    const char* name;
    int32_t median;
    float epsilon;
  };
  for (const Kind& kind :
       {Kind{"", 0, 0.01f}, Kind{", all iterations", 0, 0.0f}, Kind{", all iterations, median", 5, 0.0f}}) {
    twostream_tvl1_flow_args args{};
    args.frames = {grey.data(), TWOSTREAM_FLOAT32, 2, height, width, pixels, width, 1};
    args.pairs = pair;
    args.pair_count = 1;
    args.output = {out.data(), 2 * pixels, 2 * width, 2, 1};
    args.tau = 0.25f;
    args.lambda = 0.15f;
    args.theta = 0.3f;
    args.epsilon = kind.epsilon;
    args.scales = 2;
    args.scale_step = 0.8f;
    args.warps = 2;
    args.iterations = 8;
    args.median = kind.median;
    args.median_every = 8;
    args.concurrent_pairs = 1;
    std::vector<unsigned char> workspace(static_cast<size_t>(twostream_tvl1_flow_workspace_cpu(&args)) + 64);
    args.workspace = workspace.data() + (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64;
    count(std::string("tvl1_flow") + kind.name, [&] { return twostream_tvl1_flow_cpu(&args); });
  }
}

}  // namespace

int main(int count_of_arguments, char** arguments) {
  if (count_of_arguments > 1) wanted = arguments[1];
  std::puts(twostream_cpu_isa());
  std::vector<uint8_t> codes(static_cast<size_t>(fields * 2 * pixels));
  for (uint8_t& each : codes) each = static_cast<uint8_t>(next_word());
  const std::vector<float> flow = numbers(fields * 2 * pixels, -4.0f, 4.0f);
  const std::vector<float> lo = numbers(fields * 2, -6.0f, -2.0f), step = numbers(fields * 2, 0.01f, 0.05f);
  const std::vector<float> mean = numbers(fields * 2, -1.0f, 1.0f), camera = numbers(fields * 6, -0.02f, 0.02f);
  const int32_t windows[] = {3, 7, 0, 8, 30, 1};
  std::vector<float> out, positions, displacements;

  for (const Layout layout : {planar, interleaved}) {
    const auto coded = fields_in(codes, layout), floats = fields_in(flow, layout);
    const twostream_batch of_codes{coded.data(), samples, length, TWOSTREAM_UINT8};
    const twostream_batch of_floats{floats.data(), samples, length, TWOSTREAM_FLOAT32};
    const std::string kind = layout == planar ? ", planar" : ", interleaved";

    twostream_flow_stack_args stack{
        of_codes, windows, 1, lo.data(), step.data(), mean.data(), stack_in(out, 2 * length), nullptr};
    const auto call_stack = [&] { return twostream_flow_stack_cpu(&stack); };
    count("flow_stack, codes" + kind, call_stack);
    if (layout == planar) count_streamed(of_codes, lo.data(), step.data(), mean.data());
    stack.output = stack_in(out, 2 * length, TWOSTREAM_FLOAT32, true);
    count("flow_stack, codes, channels last" + kind, call_stack);
    stack.output = stack_in(out, 2 * length, TWOSTREAM_BFLOAT16);
    count("flow_stack, codes, bfloat16" + kind, call_stack);
    stack.output = stack_in(out, 2 * length);
    stack.mean = nullptr;
    stack.camera = camera.data();
    count("flow_stack, codes, a camera" + kind, call_stack);
    stack = {of_floats, windows, 1, nullptr, nullptr, mean.data(), stack_in(out, 2 * length), nullptr};
    count("flow_stack, floats" + kind, call_stack);

    twostream_trajectory_stack_args along{
        of_codes, windows, 1, lo.data(), step.data(), mean.data(), 0, stack_in(out, 2 * length), nullptr};
    const auto call_along = [&] { return twostream_trajectory_stack_cpu(&along); };
    count("trajectory_stack, codes" + kind, call_along);
    along.output = stack_in(out, 2 * length, TWOSTREAM_BFLOAT16);
    count("trajectory_stack, codes, bfloat16" + kind, call_along);
    along = {of_floats, windows, 1, nullptr, nullptr, mean.data(), 1, stack_in(out, 2 * length), nullptr};
    count("trajectory_stack, floats, both sides" + kind, call_along);

    std::vector<float> gradient = room_for(fields * 2 * pixels);
    const auto gradients = fields_in(gradient, layout);
    const twostream_flow_stack_backward_args back{
        stack_in(out, 2 * length), windows, 1, {gradients.data(), samples, length, TWOSTREAM_FLOAT32}};
    count("flow_stack, gradient" + kind, [&] { return twostream_flow_stack_backward_cpu(&back); });

    std::vector<float> means = room_for(fields * 2);
    positions = room_for(samples * 2 * length * plane);
    displacements = positions;
    std::vector<uint32_t> largest(static_cast<size_t>(fields * 2));
    std::vector<int64_t> sums(static_cast<size_t>(fields * 2 * pixels));
    const twostream_trajectory_stack_backward_args along_back{of_floats,
                                                              windows,
                                                              1,
                                                              0,
                                                              stack_in(out, 2 * length),
                                                              means.data(),
                                                              gradients.data(),
                                                              1,
                                                              positions.data(),
                                                              displacements.data(),
                                                              largest.data(),
                                                              sums.data(),
                                                              2 * length * pixels,
                                                              nullptr};
    count("trajectory_stack, gradient" + kind, [&] { return twostream_trajectory_stack_backward_cpu(&along_back); });

    const twostream_mean_flow_args mean_codes{of_codes, lo.data(), step.data(), means.data()};
    count("mean_flow, codes" + kind, [&] { return twostream_mean_flow_cpu(&mean_codes); });
    const twostream_mean_flow_args mean_floats{of_floats, nullptr, nullptr, means.data()};
    count("mean_flow, floats" + kind, [&] { return twostream_mean_flow_cpu(&mean_floats); });

    std::vector<float> maps = room_for(fields * 6);
    const twostream_camera_motion_args moved{of_codes, lo.data(), step.data(), 8, maps.data()};
    count("camera_motion, codes" + kind, [&] { return twostream_camera_motion_cpu(&moved); });

    std::vector<uint8_t> made(codes.size());
    const auto targets = fields_in(made, layout);
    std::vector<float> ranges = room_for(fields * 6);
    const twostream_quantize_flow_args quantized{
        of_floats, -1.0f, targets.data(), ranges.data(), ranges.data() + fields * 2, ranges.data() + fields * 4};
    count("quantize_flow" + kind, [&] { return twostream_quantize_flow_cpu(&quantized); });
    for (const twostream_dtype dtype : {TWOSTREAM_FLOAT32, TWOSTREAM_BFLOAT16}) {
      const twostream_dequantize_flow_args values{of_codes, lo.data(), step.data(), gradients.data(), dtype};
      count((dtype == TWOSTREAM_FLOAT32 ? "dequantize_flow" : "dequantize_flow, bfloat16") + kind,
            [&] { return twostream_dequantize_flow_cpu(&values); });
    }
  }

  const twostream_sample frames[samples] = {{codes.data(), height, width, 0, 3 * width, 3, 1},
                                            {codes.data() + 3 * pixels, height, width, 0, 3 * width, 3, 1}};
  for (const twostream_dtype dtype : {TWOSTREAM_FLOAT32, TWOSTREAM_BFLOAT16}) {
    const twostream_crop_frames_args crops{{frames, samples, 1, TWOSTREAM_UINT8},
                                           windows,
                                           1,
                                           {123.0f, 117.0f, 104.0f},
                                           {58.0f, 57.0f, 57.5f},
                                           nullptr,
                                           stack_in(out, 3, dtype)};
    count(dtype == TWOSTREAM_FLOAT32 ? "crop_frames" : "crop_frames, bfloat16",
          [&] { return twostream_crop_frames_cpu(&crops); });
  }
  std::vector<float> gradient = room_for(samples * 3 * pixels);
  const twostream_sample gradients[samples] = {{gradient.data(), height, width, 0, 3 * width, 3, 1},
                                               {gradient.data() + 3 * pixels, height, width, 0, 3 * width, 3, 1}};
  const twostream_crop_frames_backward_args back{
      stack_in(out, 3), windows, 1, {58.0f, 57.0f, 57.5f}, {gradients, samples, 1, TWOSTREAM_FLOAT32}};
  count("crop_frames, gradient", [&] { return twostream_crop_frames_backward_cpu(&back); });
  count_responses(flow);
  count_windows();
  count_tvl1();
}
