// SPDX-License-Identifier: BSD-3-Clause
// Calls of the C API made from bytes, for libFuzzer: sizes, strides, windows and numbers as they come, and memory that
// is exactly as large as the headers ask for, so that AddressSanitizer sees whoever reads or writes past it.
//
// TWOSTREAM_FUZZ in the environment names the function; see kTargets.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "twostream/twostream.h"

namespace {

// Bytes as a series of choices; when they are used up, zeros.
class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), end_(data + size) {}

  template <class T>
  T any() {
    T value{};
    const size_t count = std::min(sizeof(T), static_cast<size_t>(end_ - data_));
    std::memcpy(&value, data_, count);
    data_ += count;
    return value;
  }

  int64_t between(int64_t low, int64_t high) { return low + any<uint8_t>() % (high - low + 1); }

  // Mostly small, and now and then whatever 32 bits can be.
  int32_t number(int32_t low, int32_t high) {
    return between(0, 31) == 31 ? any<int32_t>() : static_cast<int32_t>(between(low, high));
  }

  float real() { return between(0, 3) == 3 ? any<float>() : static_cast<float>(between(0, 40) - 20) / 8; }

  float real_or(float usual) { return between(0, 1) ? usual : real(); }

  void fill(void* memory, size_t size) {
    auto* bytes = static_cast<uint8_t*>(memory);
    const uint32_t seed = any<uint32_t>();
    uint32_t state = seed | 1;
    for (size_t index = 0; index < size; ++index) {
      state = state * 1664525u + 1013904223u;
      bytes[index] = static_cast<uint8_t>(state >> 24);
    }
    const size_t given = std::min(size, static_cast<size_t>(end_ - data_) / 4);
    std::memcpy(bytes, data_, given);
    data_ += given;
  }

 private:
  const uint8_t* data_;
  const uint8_t* end_;
};

int64_t bytes_of(twostream_dtype dtype) {
  switch (dtype) {
    case TWOSTREAM_UINT8:
      return 1;
    case TWOSTREAM_FLOAT32:
      return 4;
    default:
      return 2;
  }
}

// All memory of one call.
class Memory {
 public:
  explicit Memory(Choices& choices) : choices_(choices) {}

  void* take(int64_t bytes) {
    // Never of size 0, so that the address of nothing is an address too; 64 bytes before the end of a page or not, as
    // malloc has it.
    blocks_.emplace_back(new uint8_t[std::max<int64_t>(bytes, 1)]);
    choices_.fill(blocks_.back().get(), bytes);
    return blocks_.back().get();
  }

  template <class T>
  T* take_array(int64_t count) {
    return static_cast<T*>(take(count * static_cast<int64_t>(sizeof(T))));
  }

  float* take_reals(int64_t count) {
    auto* values = take_array<float>(count);
    for (int64_t index = 0; index < count; ++index) {
      values[index] = choices_.real();
    }
    return values;
  }

  void* take_aligned(int64_t bytes) {
    aligned_.emplace_back(std::aligned_alloc(64, (std::max<int64_t>(bytes, 1) + 63) / 64 * 64));
    return aligned_.back().get();
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  Choices& choices_;
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  std::vector<std::unique_ptr<void, Free>> aligned_;
};

// Strides of a tensor in some order of its dimensions, with gaps; of one that is only read some may be 0. Gives the
// elements that it reaches over.
int64_t lay_out(Choices& choices, const std::vector<int64_t>& sides, bool is_read, std::vector<int64_t>* strides) {
  std::vector<size_t> order(sides.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (choices.between(0, 1)) {
    for (size_t index = order.size(); index > 1; --index) {
      std::swap(order[index - 1], order[choices.between(0, static_cast<int64_t>(index) - 1)]);
    }
  } else {
    std::reverse(order.begin(), order.end());  // contiguous
  }
  strides->assign(sides.size(), 0);
  int64_t reach = 1;
  for (const size_t dimension : order) {
    const int64_t stride = reach + (choices.between(0, 7) == 7 ? choices.between(1, 3) : 0);
    if (is_read && choices.between(0, 15) == 15) {
      continue;
    }
    (*strides)[dimension] = stride;
    reach = std::max<int64_t>(reach, (std::max<int64_t>(sides[dimension], 1) - 1) * stride + reach);
  }
  return sides.empty() || *std::min_element(sides.begin(), sides.end()) > 0 ? reach : 0;
}

twostream_dtype any_dtype(Choices& choices, bool is_float) {
  return static_cast<twostream_dtype>(is_float ? choices.between(1, 3) : choices.between(0, 3));
}

struct Samples {
  std::vector<twostream_sample> samples;
  twostream_batch batch;
};

// N samples [L, height, width, components], of one size or several, or of those of others.
Samples make_samples(Choices& choices, Memory& memory, int32_t length, int64_t components, twostream_dtype dtype,
                     bool is_read, const Samples* like = nullptr) {
  Samples made;
  const int64_t count = like ? like->batch.size : choices.between(0, 3);
  for (int64_t index = 0; index < count; ++index) {
    twostream_sample sample{};
    sample.height = like ? like->samples[index].height : static_cast<int32_t>(choices.between(1, 40));
    sample.width = like ? like->samples[index].width : static_cast<int32_t>(choices.between(1, 70));
    std::vector<int64_t> strides;
    const int64_t reach = lay_out(choices, {length, sample.height, sample.width, components}, is_read, &strides);
    sample.field_stride = strides[0];
    sample.row_stride = strides[1];
    sample.column_stride = strides[2];
    sample.component_stride = strides[3];
    sample.data = memory.take(reach * bytes_of(dtype));
    made.samples.push_back(sample);
  }
  made.batch = {made.samples.data(), count, length, dtype};
  return made;
}

// Fields of flow.
Samples make_flow(Choices& choices, Memory& memory, twostream_dtype dtype, bool is_read) {
  return make_samples(choices, memory, static_cast<int32_t>(choices.between(1, 4)), 2, dtype, is_read);
}

// How many numbers a lo, a step or a mean has: [N, L, 2].
int64_t count_ranges(const Samples& flow) { return flow.batch.size * flow.batch.length * 2; }

// A window that fits all samples, or now and then another size, which must be refused before memory is touched.
void choose_window(Choices& choices, const Samples& samples, int32_t* height, int32_t* width) {
  int32_t least_height = 40, least_width = 70;
  for (const twostream_sample& sample : samples.samples) {
    least_height = std::min(least_height, sample.height);
    least_width = std::min(least_width, sample.width);
  }
  *height = static_cast<int32_t>(choices.between(1, least_height));
  *width = static_cast<int32_t>(choices.between(1, least_width));
}

bool fits(const Samples& samples, int32_t height, int32_t width) {
  return height >= 1 && width >= 1 &&
         std::all_of(samples.samples.begin(), samples.samples.end(),
                     [&](const twostream_sample& sample) { return sample.height >= height && sample.width >= width; });
}

twostream_stack make_stack(Choices& choices, Memory& memory, const Samples& samples, int64_t windows, int64_t channels,
                           bool is_read) {
  twostream_stack stack{};
  choose_window(choices, samples, &stack.height, &stack.width);
  stack.dtype = any_dtype(choices, true);
  std::vector<int64_t> strides;
  const std::vector<int64_t> sides{samples.batch.size, windows, channels, stack.height, stack.width};
  const int64_t reach = lay_out(choices, sides, is_read, &strides);
  stack.sample_stride = strides[0];
  stack.window_stride = strides[1];
  stack.channel_stride = strides[2];
  stack.row_stride = strides[3];
  stack.column_stride = strides[4];
  stack.data = memory.take(reach * bytes_of(stack.dtype));
  if (choices.between(0, 31) == 31) {  // a size that the samples do not have
    const int32_t height = choices.any<int32_t>(), width = choices.any<int32_t>();
    if (!fits(samples, height, width)) {
      stack.height = height;
      stack.width = width;
    }
  }
  return stack;
}

float* maybe_reals(Choices& choices, Memory& memory, int64_t count, bool needed) {
  return needed || choices.between(0, 1) ? memory.take_reals(count) : nullptr;
}

// The windows of an operator that takes some.
template <class Args>
void choose_windows(Choices& choices, Memory& memory, const Samples& samples, Args* args) {
  args->windows_per_sample = static_cast<int32_t>(choices.between(0, 3));
  const int64_t count = samples.batch.size * args->windows_per_sample;
  auto* windows = memory.take_array<int32_t>(3 * count);
  for (int64_t index = 0; index < 3 * count; ++index) {
    windows[index] = choices.number(-2, 40);
  }
  args->windows = windows;
}

// lo and step of one that takes codes.
template <class Args>
void choose_ranges(Choices& choices, Memory& memory, const Samples& flow, bool needed, Args* args) {
  args->lo = maybe_reals(choices, memory, count_ranges(flow), needed);
  args->step = maybe_reals(choices, memory, count_ranges(flow), needed);
}

// What the two operators of stacks share.
template <class Args>
Args stack_args(Choices& choices, Memory& memory, const Samples& flow) {
  Args args{};
  args.flow = flow.batch;
  choose_windows(choices, memory, flow, &args);
  const bool coded = args.flow.dtype == TWOSTREAM_UINT8 && choices.between(0, 15) != 15;
  choose_ranges(choices, memory, flow, coded, &args);
  args.mean = maybe_reals(choices, memory, count_ranges(flow), false);
  args.output = make_stack(choices, memory, flow, args.windows_per_sample, 2 * flow.batch.length, false);
  args.camera = maybe_reals(choices, memory, 3 * count_ranges(flow), false);
  return args;
}

int flow_stack(Choices& choices, Memory& memory) {
  const Samples flow = make_flow(choices, memory, any_dtype(choices, false), true);
  const auto args = stack_args<twostream_flow_stack_args>(choices, memory, flow);
  return twostream_flow_stack_cpu(&args);
}

int flow_stack_backward(Choices& choices, Memory& memory) {
  const Samples flow = make_flow(choices, memory, any_dtype(choices, true), false);
  twostream_flow_stack_backward_args args{};
  args.flow_gradient = flow.batch;
  choose_windows(choices, memory, flow, &args);
  args.gradient = make_stack(choices, memory, flow, args.windows_per_sample, 2 * flow.batch.length, true);
  return twostream_flow_stack_backward_cpu(&args);
}

int trajectory_stack(Choices& choices, Memory& memory) {
  const Samples flow = make_flow(choices, memory, any_dtype(choices, false), true);
  auto args = stack_args<twostream_trajectory_stack_args>(choices, memory, flow);
  args.bidirectional = static_cast<int32_t>(choices.between(0, 1));
  return twostream_trajectory_stack_cpu(&args);
}

int trajectory_stack_backward(Choices& choices, Memory& memory) {
  const bool with_fields = choices.between(0, 3) != 3;
  const Samples flow = make_flow(choices, memory, any_dtype(choices, with_fields), true);
  twostream_trajectory_stack_backward_args args{};
  args.flow = flow.batch;
  choose_windows(choices, memory, flow, &args);
  args.bidirectional = static_cast<int32_t>(choices.between(0, 1));
  args.gradient = make_stack(choices, memory, flow, args.windows_per_sample, 2 * flow.batch.length, true);
  args.mean_gradient = memory.take_array<float>(count_ranges(flow));
  Samples gradients;
  if (with_fields) {
    gradients = make_samples(choices, memory, flow.batch.length, 2, flow.batch.dtype, false, &flow);
    args.flow_gradient = gradients.samples.data();
    args.subtract_mean = static_cast<int32_t>(choices.between(0, 1));
    int64_t largest = 0;
    for (const twostream_sample& sample : flow.samples) {
      largest = std::max<int64_t>(largest, int64_t{sample.height} * sample.width);
    }
    // Of a size that is refused no workspace is made.
    const bool sound = fits(flow, args.gradient.height, args.gradient.width);
    const int64_t pixels = sound ? int64_t{args.gradient.height} * args.gradient.width : 0;
    const int64_t places = flow.batch.size * args.windows_per_sample * 2 * flow.batch.length * pixels;
    args.positions = memory.take_array<float>(places);
    args.displacements = memory.take_array<float>(places);
    args.largest = memory.take_array<uint32_t>(count_ranges(flow));
    args.sums_stride = 2 * flow.batch.length * largest + choices.between(0, 3);
    args.sums = memory.take_array<int64_t>(flow.batch.size * args.sums_stride);
    args.camera = maybe_reals(choices, memory, 3 * count_ranges(flow), false);
  }
  return twostream_trajectory_stack_backward_cpu(&args);
}

int crop_frames(Choices& choices, Memory& memory) {
  const Samples frames = make_samples(choices, memory, 1, 3, any_dtype(choices, false), true);
  twostream_crop_frames_args args{};
  args.frames = frames.batch;
  choose_windows(choices, memory, frames, &args);
  for (int channel = 0; channel < 3; ++channel) {
    args.mean[channel] = choices.real();
    args.deviation[channel] = choices.real();
  }
  args.shift = maybe_reals(choices, memory, 3 * frames.batch.size, false);
  args.output = make_stack(choices, memory, frames, args.windows_per_sample, 3, false);
  return twostream_crop_frames_cpu(&args);
}

int crop_frames_backward(Choices& choices, Memory& memory) {
  const Samples frames = make_samples(choices, memory, 1, 3, any_dtype(choices, true), false);
  twostream_crop_frames_backward_args args{};
  args.frames_gradient = frames.batch;
  choose_windows(choices, memory, frames, &args);
  for (float& deviation : args.deviation) {
    deviation = choices.real();
  }
  args.gradient = make_stack(choices, memory, frames, args.windows_per_sample, 3, true);
  return twostream_crop_frames_backward_cpu(&args);
}

int mean_flow(Choices& choices, Memory& memory) {
  const Samples flow = make_flow(choices, memory, any_dtype(choices, false), true);
  twostream_mean_flow_args args{};
  args.flow = flow.batch;
  choose_ranges(choices, memory, flow, flow.batch.dtype == TWOSTREAM_UINT8, &args);
  args.output = memory.take_array<float>(count_ranges(flow));
  return twostream_mean_flow_cpu(&args);
}

int camera_motion(Choices& choices, Memory& memory) {
  const Samples flow = make_flow(choices, memory, any_dtype(choices, false), true);
  twostream_camera_motion_args args{};
  args.flow = flow.batch;
  choose_ranges(choices, memory, flow, flow.batch.dtype == TWOSTREAM_UINT8, &args);
  args.iterations = static_cast<int32_t>(choices.between(0, 12));
  args.output = memory.take_array<float>(3 * count_ranges(flow));
  return twostream_camera_motion_cpu(&args);
}

int quantize_flow(Choices& choices, Memory& memory) {
  const Samples flow = make_flow(choices, memory, any_dtype(choices, true), true);
  const Samples codes = make_samples(choices, memory, flow.batch.length, 2, TWOSTREAM_UINT8, false, &flow);
  twostream_quantize_flow_args args{};
  args.flow = flow.batch;
  args.bound = choices.real();
  args.codes = codes.samples.data();
  args.lo = memory.take_array<float>(count_ranges(flow));
  args.step = memory.take_array<float>(count_ranges(flow));
  args.mean = memory.take_array<float>(count_ranges(flow));
  return twostream_quantize_flow_cpu(&args);
}

int dequantize_flow(Choices& choices, Memory& memory) {
  const Samples codes = make_flow(choices, memory, TWOSTREAM_UINT8, true);
  twostream_dequantize_flow_args args{};
  args.codes = codes.batch;
  args.output_dtype = any_dtype(choices, true);
  const Samples output = make_samples(choices, memory, codes.batch.length, 2, args.output_dtype, false, &codes);
  args.output = output.samples.data();
  choose_ranges(choices, memory, codes, true, &args);
  return twostream_dequantize_flow_cpu(&args);
}

// What the two operators that make windows share.
template <class Args>
void choose_sizes(Choices& choices, Memory& memory, Args* args) {
  args->size = choices.between(0, 20);
  auto* sizes = memory.take_array<int64_t>(2 * args->size);
  for (int64_t index = 0; index < 2 * args->size; ++index) {
    sizes[index] = choices.between(0, 7) == 7 ? choices.any<int64_t>() : choices.number(-1, 60);
  }
  args->sizes = sizes;
  args->height = choices.number(0, 40);
  args->width = choices.number(0, 40);
}

int random_windows(Choices& choices, Memory& memory) {
  twostream_random_windows_args args{};
  choose_sizes(choices, memory, &args);
  args.flip = choices.real();
  args.seed = choices.any<uint64_t>();
  args.offset = choices.any<uint64_t>();
  args.windows = memory.take_array<int32_t>(3 * args.size);
  return twostream_random_windows_cpu(&args);
}

int ten_crop_windows(Choices& choices, Memory& memory) {
  twostream_ten_crop_windows_args args{};
  choose_sizes(choices, memory, &args);
  args.windows = memory.take_array<int32_t>(30 * args.size);
  return twostream_ten_crop_windows_cpu(&args);
}

twostream_response_shape make_response(Choices& choices, twostream_response_constants* constants, int64_t* bytes) {
  twostream_response_shape shape{};
  shape.samples = choices.between(0, 3);
  shape.channels = choices.between(0, 40);
  shape.pixels = choices.between(0, 70);
  shape.channels_last = static_cast<int32_t>(choices.between(0, 1));
  shape.dtype = any_dtype(choices, true);
  *bytes = shape.samples * shape.channels * shape.pixels * bytes_of(shape.dtype);
  constants->size = choices.between(0, 15) == 15 ? choices.any<int64_t>() : choices.between(0, 9);
  constants->alpha = choices.real();
  constants->beta = choices.real_or(0.75f);
  constants->k = choices.real();
  return shape;
}

int local_response_norm(Choices& choices, Memory& memory) {
  twostream_local_response_norm_args args{};
  int64_t bytes = 0;
  args.shape = make_response(choices, &args.constants, &bytes);
  args.input = memory.take(bytes);
  args.output = memory.take(bytes);
  return twostream_local_response_norm_cpu(&args);
}

int local_response_norm_backward(Choices& choices, Memory& memory) {
  twostream_local_response_norm_backward_args args{};
  int64_t bytes = 0;
  args.shape = make_response(choices, &args.constants, &bytes);
  args.output_gradient = memory.take(bytes);
  args.input = memory.take(bytes);
  args.input_gradient = memory.take(bytes);
  return twostream_local_response_norm_backward_cpu(&args);
}

twostream_flow_fields make_fields(Choices& choices, Memory& memory, int64_t pairs, int64_t height, int64_t width,
                                  bool is_read) {
  twostream_flow_fields fields{};
  std::vector<int64_t> strides;
  const int64_t reach = lay_out(choices, {pairs, height, width, 2}, is_read, &strides);
  fields.data = static_cast<float*>(memory.take(4 * reach));
  fields.field_stride = strides[0];
  fields.row_stride = strides[1];
  fields.column_stride = strides[2];
  fields.component_stride = strides[3];
  return fields;
}

int tvl1_flow(Choices& choices, Memory& memory) {
  twostream_tvl1_flow_args args{};
  twostream_grey_frames& frames = args.frames;
  frames.dtype = choices.between(0, 1) ? TWOSTREAM_UINT8 : TWOSTREAM_FLOAT32;
  frames.count = choices.between(1, 3);
  frames.height = static_cast<int32_t>(choices.between(1, 40));
  frames.width = static_cast<int32_t>(choices.between(1, 70));
  std::vector<int64_t> strides;
  const int64_t reach = lay_out(choices, {frames.count, frames.height, frames.width}, true, &strides);
  frames.frame_stride = strides[0];
  frames.row_stride = strides[1];
  frames.column_stride = strides[2];
  frames.data = memory.take(reach * bytes_of(frames.dtype));
  args.pair_count = choices.between(0, 3);
  auto* pairs = memory.take_array<int32_t>(2 * args.pair_count);
  for (int64_t index = 0; index < 2 * args.pair_count; ++index) {
    pairs[index] = choices.number(0, 2);
  }
  args.pairs = pairs;
  args.output = make_fields(choices, memory, args.pair_count, frames.height, frames.width, false);
  if (choices.between(0, 1)) {
    args.init = choices.between(0, 1)
                    ? args.output
                    : make_fields(choices, memory, args.pair_count, frames.height, frames.width, true);
  }
  args.tau = choices.real_or(0.25f);
  args.lambda = choices.real_or(0.15f);
  args.theta = choices.real_or(0.3f);
  args.epsilon = choices.real_or(0.0f);
  args.scales = choices.number(0, 4);
  args.scale_step = choices.real_or(0.5f);
  args.finest_scale = choices.number(0, 2);
  args.warps = static_cast<int32_t>(choices.between(0, 2));  // as many loops as are asked for are done: few
  args.iterations = static_cast<int32_t>(choices.between(0, 4));
  args.median = static_cast<int32_t>(choices.between(0, 5));
  args.median_every = choices.number(0, 3);
  args.concurrent_pairs = static_cast<int32_t>(choices.between(0, 3));
  args.share_rows = static_cast<int32_t>(choices.between(0, 1));
  const int64_t bytes = twostream_tvl1_flow_workspace_cpu(&args);
  if (bytes > (int64_t{1} << 28)) {
    std::fprintf(stderr, "a workspace of %lld bytes for a small frame\n", static_cast<long long>(bytes));
    std::abort();
  }
  args.workspace = memory.take_aligned(bytes);
  return twostream_tvl1_flow_cpu(&args);
}

struct Target {
  const char* name;
  int (*call)(Choices&, Memory&);
};

const Target kTargets[] = {
    {"flow_stack", flow_stack},
    {"flow_stack_backward", flow_stack_backward},
    {"trajectory_stack", trajectory_stack},
    {"trajectory_stack_backward", trajectory_stack_backward},
    {"crop_frames", crop_frames},
    {"crop_frames_backward", crop_frames_backward},
    {"mean_flow", mean_flow},
    {"camera_motion", camera_motion},
    {"quantize_flow", quantize_flow},
    {"dequantize_flow", dequantize_flow},
    {"random_windows", random_windows},
    {"ten_crop_windows", ten_crop_windows},
    {"local_response_norm", local_response_norm},
    {"local_response_norm_backward", local_response_norm_backward},
    {"tvl1_flow", tvl1_flow},
};

const Target& chosen_target() {
  const char* name = std::getenv("TWOSTREAM_FUZZ");
  for (const Target& target : kTargets) {
    if (name != nullptr && std::strcmp(name, target.name) == 0) {
      return target;
    }
  }
  std::fprintf(stderr, "TWOSTREAM_FUZZ must name one of\n");
  for (const Target& target : kTargets) {
    std::fprintf(stderr, "  %s\n", target.name);
  }
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Target& target = chosen_target();
  Choices choices(data, size);
  Memory memory(choices);
  const int status = target.call(choices, memory);
  if (status != TWOSTREAM_SUCCESS && status != TWOSTREAM_INVALID_ARGUMENT) {
    std::fprintf(stderr, "%s gave %d: %s\n", target.name, status, twostream_status_string(status));
    std::abort();
  }
  return 0;
}
