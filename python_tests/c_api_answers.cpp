// SPDX-License-Identifier: BSD-3-Clause
// Calls every operator of the C API on numbers that are the same everywhere and prints what it gives, a line each: the
// operator's name and its 32-bit words in hexadecimal. Two builds agree where their lines do (test_aarch64.py).
#include <twostream/twostream.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../benchmarks/moving_picture.h"

namespace {

constexpr int32_t samples = 2, length = 4, height = 37, width = 53, side = 24, windows = 3;
constexpr int64_t fields = samples * length, pixels = int64_t{height} * width;

uint64_t state = 88172645463325252ull;

uint32_t next_word() {  // xorshift
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<uint32_t>(state >> 16);
}

float uniform(float from, float to) {
  return from + (to - from) * (static_cast<float>(next_word() >> 8) / 16777216.0f);
}

std::vector<float> numbers(int64_t count, float from, float to) {
  std::vector<float> made(static_cast<size_t>(count));
  for (float& each : made) each = uniform(from, to);
  return made;
}

template <typename T>
void print(const std::string& name, int status, const std::vector<T>& answer) {
  std::printf("%s", name.c_str());
  if (status != TWOSTREAM_SUCCESS) std::printf(" %s", twostream_status_string(status));
  const size_t bytes = answer.size() * sizeof(T);
  for (size_t at = 0; at + 4 <= bytes; at += 4) {
    uint32_t word;
    std::memcpy(&word, reinterpret_cast<const unsigned char*>(answer.data()) + at, 4);
    std::printf(" %08" PRIx32, word);
  }
  std::puts("");
}

template <typename T>
std::vector<twostream_sample> planar(const std::vector<T>& data, int32_t components) {
  std::vector<twostream_sample> made;
  for (int32_t sample = 0; sample < samples; ++sample) {
    made.push_back({data.data() + sample * static_cast<int64_t>(data.size()) / samples, height, width,
                    components * pixels, width, 1, pixels});
  }
  return made;
}

twostream_stack stack_of(std::vector<float>& out, int32_t channels) {
  constexpr int64_t plane = int64_t{side} * side;
  out.assign(static_cast<size_t>(samples * windows * channels * plane), 0.0f);
  return {out.data(), TWOSTREAM_FLOAT32, side, side, windows * channels * plane, channels * plane, plane, side, 1};
}

}  // namespace

int main() {
  std::vector<uint8_t> codes(static_cast<size_t>(fields * 2 * pixels));
  for (uint8_t& each : codes) each = static_cast<uint8_t>(next_word());
  const std::vector<float> flow = numbers(fields * 2 * pixels, -4.0f, 4.0f);
  const std::vector<float> lo = numbers(fields * 2, -6.0f, -2.0f), step = numbers(fields * 2, 0.01f, 0.05f);
  const std::vector<float> mean = numbers(fields * 2, -1.0f, 1.0f), camera = numbers(fields * 6, -0.02f, 0.02f);
  std::vector<int32_t> places;
  for (int32_t each = 0; each < samples * windows; ++each) {
    places.insert(places.end(), {static_cast<int32_t>(next_word() % (height - side)),
                                 static_cast<int32_t>(next_word() % (width - side)), each % 2});
  }
  const auto coded = planar(codes, 2), floats = planar(flow, 2);
  const twostream_batch of_codes{coded.data(), samples, length, TWOSTREAM_UINT8};
  const twostream_batch of_floats{floats.data(), samples, length, TWOSTREAM_FLOAT32};
  std::vector<float> out;

  for (const bool from_codes : {true, false}) {
    const twostream_batch& batch = from_codes ? of_codes : of_floats;
    const float *low = from_codes ? lo.data() : nullptr, *steps = from_codes ? step.data() : nullptr;
    const std::string kind = from_codes ? " of codes" : " of floats";
    const twostream_flow_stack_args plain{
        batch, places.data(), windows, low, steps, mean.data(), stack_of(out, 2 * length), nullptr};
    print("flow_stack" + kind, twostream_flow_stack_cpu(&plain), out);
    const twostream_flow_stack_args moved{
        batch, places.data(), windows, low, steps, nullptr, stack_of(out, 2 * length), camera.data()};
    print("flow_stack with camera" + kind, twostream_flow_stack_cpu(&moved), out);
    for (const int32_t both : {0, 1}) {
      const twostream_trajectory_stack_args args{
          batch, places.data(), windows, low, steps, mean.data(), both, stack_of(out, 2 * length), nullptr};
      print("trajectory_stack" + kind, twostream_trajectory_stack_cpu(&args), out);
    }
    out.assign(fields * 2, 0.0f);
    const twostream_mean_flow_args means{batch, low, steps, out.data()};
    print("mean_flow" + kind, twostream_mean_flow_cpu(&means), out);
    out.assign(fields * 6, 0.0f);
    const twostream_camera_motion_args maps{batch, low, steps, 8, out.data()};
    print("camera_motion" + kind, twostream_camera_motion_cpu(&maps), out);
  }

  std::vector<uint8_t> made(codes.size());
  const auto targets = planar(made, 2);
  std::vector<float> ranges(fields * 6);
  const twostream_quantize_flow_args quantized{
      of_floats, -1.0f, targets.data(), ranges.data(), ranges.data() + fields * 2, ranges.data() + fields * 4};
  print("quantize_flow, ranges", twostream_quantize_flow_cpu(&quantized), ranges);
  print("quantize_flow, codes", 0, made);
  out.assign(flow.size(), 0.0f);
  const auto decoded = planar(out, 2);
  const twostream_dequantize_flow_args values{of_codes, lo.data(), step.data(), decoded.data(), TWOSTREAM_FLOAT32};
  print("dequantize_flow", twostream_dequantize_flow_cpu(&values), out);

  const twostream_sample frames[samples] = {{codes.data(), height, width, 0, 3 * width, 3, 1},
                                            {codes.data() + 3 * pixels, height, width, 0, 3 * width, 3, 1}};
  const twostream_crop_frames_args crops{{frames, samples, 1, TWOSTREAM_UINT8},
                                         places.data(),
                                         windows,
                                         {123.0f, 117.0f, 104.0f},
                                         {58.0f, 57.0f, 57.5f},
                                         nullptr,
                                         stack_of(out, 3)};
  print("crop_frames", twostream_crop_frames_cpu(&crops), out);

  const int64_t sizes[] = {height, width, 240, 320, 256, 256};
  std::vector<int32_t> drawn(3 * 30);
  const twostream_random_windows_args random{sizes, 3, side, side, 0.5f, 7, 1234567890123, drawn.data()};
  print("random_windows", twostream_random_windows_cpu(&random), drawn);
  const twostream_ten_crop_windows_args ten{sizes, 3, side, side, drawn.data()};
  print("ten_crop_windows", twostream_ten_crop_windows_cpu(&ten), drawn);

  for (const float beta : {0.75f, 0.6f}) {
    const twostream_response_shape shape{2, 16, 8 * pixels / 16, 0, TWOSTREAM_FLOAT32};
    out.assign(static_cast<size_t>(shape.samples * shape.channels * shape.pixels), 0.0f);
    const twostream_response_constants constants{5, 5e-4f, beta, 2.0f};
    const twostream_local_response_norm_args args{shape, constants, flow.data(), out.data()};
    print("local_response_norm", twostream_local_response_norm_cpu(&args), out);
    const twostream_local_response_norm_backward_args back{shape, constants, flow.data(), flow.data(), out.data()};
    print("local_response_norm, gradient", twostream_local_response_norm_backward_cpu(&back), out);
  }

  const std::vector<float> grey = moving_picture(height, width);
  const int32_t pair[] = {0, 1};
  out.assign(static_cast<size_t>(2 * pixels), 0.0f);
  const twostream_flow_fields target{out.data(), 2 * pixels, 2 * width, 2, 1};
  twostream_tvl1_flow_args tvl1{{grey.data(), TWOSTREAM_FLOAT32, 2, height, width, pixels, width, 1},
                                pair,
                                1,
                                {},
                                target,
                                0.25f,
                                0.15f,
                                0.3f,
                                0.01f,
                                5,
                                0.8f,
                                0,
                                5,
                                30,
                                0,
                                10,
                                1,
                                0,
                                nullptr};
  std::vector<unsigned char> workspace(static_cast<size_t>(twostream_tvl1_flow_workspace_cpu(&tvl1)) + 64);
  tvl1.workspace = workspace.data() + (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64;
  print("tvl1_flow", twostream_tvl1_flow_cpu(&tvl1), out);
}
