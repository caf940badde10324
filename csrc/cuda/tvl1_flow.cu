// SPDX-License-Identifier: BSD-3-Clause
// The pyramids of all frames are built once; then some pairs at a time go through levels, warps and iterations
// together, in launches whose number depends on the arguments alone. The twin is cpu/tvl1_flow.cpp, which gives the
// same bits.
//
// The limits, for pairs of 256x340 on an H100 (33.5 T float32 instructions/s, 67 TFLOP/s if each were an fma, and
// 3.35 TB/s). Real clips take 13 to 43, on average 26 million iterations of a pixel for a pair (324 if none converges),
// and about an eighth more where convergence came before the last of a launch's four. Of what the tiles compute, two
// thirds are their own. An iteration of a pixel is 115 instructions as compiled for sm_90, and moves 22 bytes (40
// loaded in tiles that overlap, 24 stored, in four iterations). A pair is thus 5 G instructions and 650 MB, and its 25
// warps add a sixth: 5,500 pairs/s by instructions, 4,800 by memory. Some 1,900 launches of 2 to 3 us, most of which
// find all pairs converged, are shared by the pairs at work: 64 of them lose 5 ms to it. Not yet run on a GPU; to be
// expected are 1,500 to 2,500 pairs/s.
#include <algorithm>

#include "core/tvl1_flow.h"
#include "core/validate.h"
#include "cuda/launch.h"
#include "cuda/tvl1_iterate.cuh"
#include "cuda/tvl1_slots.cuh"
#include "twostream/tvl1_flow.h"

using namespace twostream;

namespace {

// ---- workspace -----------------------------------------------------------------------------------------------------

// The pyramids of all frames; a level of one frame is one image without gaps.
struct Images {
  float* base;
  int64_t frame_stride;
  Tvl1Level level;

  __device__ float* of(int64_t frame) const { return base + frame * frame_stride; }
};

int64_t image_size(const Tvl1Level& level) { return (level.pixels() + 15) / 16 * 16; }

int64_t frame_size(const Tvl1Pyramid& pyramid) {
  int64_t floats = 0;
  for (int index = 0; index < pyramid.count; ++index) {
    floats += image_size(pyramid.levels[index]);
  }
  return floats;
}

Images images_of(float* base, const Tvl1Pyramid& pyramid, int wanted) {
  for (int index = 0; index < wanted; ++index) {
    base += image_size(pyramid.levels[index]);
  }
  return {base, frame_size(pyramid), pyramid.levels[wanted]};
}

int64_t most_at_work(const twostream_tvl1_flow_args& args) { return std::min(args.concurrent_pairs, most_pairs); }

int64_t frames_bytes(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid) {
  return args.frames.count * frame_size(pyramid) * static_cast<int64_t>(sizeof(float));
}

// ---- the pyramid ---------------------------------------------------------------------------------------------------

template <typename T>
__global__ void read_frames_kernel(const twostream_grey_frames frames, const Images images) {
  for (int64_t frame = blockIdx.z; frame < frames.count; frame += gridDim.z) {
    for_each_pixel(images.level, [&](int32_t y, int32_t x) {
      const T value = static_cast<const T*>(
          frames.data)[frame * frames.frame_stride + y * frames.row_stride + x * frames.column_stride];
      images.of(frame)[static_cast<int64_t>(y) * images.level.width + x] = to_float(value);
    });
  }
}

// Between four pixels; value(y, x) reads one.
template <typename Value>
__device__ float resized(const LinearTap& vertical, const LinearTap& horizontal, float factor, const Value& value) {
  const float upper_row =
      mix(value(vertical.first, horizontal.first), value(vertical.first, horizontal.second), horizontal.weight);
  const float lower_row =
      mix(value(vertical.second, horizontal.first), value(vertical.second, horizontal.second), horizontal.weight);
  return factor * mix(upper_row, lower_row, vertical.weight);
}

// `scale` is the length of a pixel of `to` in pixels of `from`.
__global__ void resize_frames_kernel(int64_t count, const Images from, const Images to, float scale) {
  for (int64_t frame = blockIdx.z; frame < count; frame += gridDim.z) {
    const float* image = from.of(frame);
    for_each_pixel(to.level, [&](int32_t y, int32_t x) {
      const LinearTap vertical = linear_tap(y, scale, from.level.height);
      const LinearTap horizontal = linear_tap(x, scale, from.level.width);
      to.of(frame)[static_cast<int64_t>(y) * to.level.width + x] = resized(
          vertical, horizontal, 1.0f,
          [&](int32_t row, int32_t column) { return image[static_cast<int64_t>(row) * from.level.width + column]; });
    });
  }
}

// ---- flow between levels -------------------------------------------------------------------------------------------

struct Resize {
  Tvl1Level from;
  Tvl1Level to;
  float scale_y;  // length of a pixel of `to` in pixels of `from`
  float scale_x;
  float factor;  // of the vectors, which grow as the image does
};

constexpr WholeDuals no_duals{};

// The first state of a pair: `init`, or nothing.
__global__ void begin_kernel(const Slots slots, const Tvl1Level level, const twostream_flow_fields init,
                             int64_t first_pair, int32_t launch) {
  const Slot slot = slots.at(blockIdx.z);
  if (first_thread_of_pair()) {
    slot.pass_on(launch, 0, 0, false, false);
  }
  const State state = slot.state(0);
  for_each_pixel(level, [&](int32_t y, int32_t x) {
    Pair<float> flow{0.0f, 0.0f};
    if (init.data != nullptr) {
      const float* from =
          init.data + (first_pair + blockIdx.z) * init.field_stride + y * init.row_stride + x * init.column_stride;
      flow = {from[0], from[init.component_stride]};
    }
    const int64_t offset = y * row_stride(level) + x;
    state.flow[offset].value = flow;
    state.duals[offset] = no_duals;
  });
}

// The flow goes to the other state, with dual variables of 0.
__global__ void resize_flow_kernel(const Slots slots, const Resize resize, int32_t launch) {
  const Slot slot = slots.at(blockIdx.z);
  const int32_t source = slot.turn(launch, resize.from).source;
  if (first_thread_of_pair()) {
    slot.pass_on(launch, 1 - source, 0, false, false);
  }
  const WholePair* from = slot.state(source).flow;
  const State to = slot.state(1 - source);
  for_each_pixel(resize.to, [&](int32_t y, int32_t x) {
    const LinearTap vertical = linear_tap(y, resize.scale_y, resize.from.height);
    const LinearTap horizontal = linear_tap(x, resize.scale_x, resize.from.width);
    const auto pixel = [&](int32_t row, int32_t column) { return from[row * row_stride(resize.from) + column].value; };
    const int64_t offset = y * row_stride(resize.to) + x;
    to.flow[offset].value = {
        resized(vertical, horizontal, resize.factor, [&](int32_t row, int32_t column) { return pixel(row, column).x; }),
        resized(vertical, horizontal, resize.factor,
                [&](int32_t row, int32_t column) { return pixel(row, column).y; })};
    to.duals[offset] = no_duals;
  });
}

__global__ void write_kernel(const Slots slots, const Tvl1Level level, const twostream_flow_fields output,
                             int64_t first_pair, int32_t launch) {
  const Slot slot = slots.at(blockIdx.z);
  const WholePair* flow = slot.state(slot.turn(launch, level).source).flow;
  float* field = output.data + (first_pair + blockIdx.z) * output.field_stride;
  for_each_pixel(level, [&](int32_t y, int32_t x) {
    const Pair<float> value = flow[y * row_stride(level) + x].value;
    float* to = field + y * output.row_stride + x * output.column_stride;
    to[0] = value.x;
    to[output.component_stride] = value.y;
  });
}

// ---- a warp --------------------------------------------------------------------------------------------------------

// The image and its differences are 0 beyond the border.
__device__ Intensity<float> sample(const float* image, const Tvl1Level& level, Pair<float> position) {
  const CubicTaps<float> vertical = cubic_taps(position.y, static_cast<float>(level.height));
  const CubicTaps<float> horizontal = cubic_taps(position.x, static_cast<float>(level.width));
  const auto top = static_cast<int32_t>(vertical.first);
  const auto left = static_cast<int32_t>(horizontal.first);
  float patch[6][6];  // the taps' pixels and those around them, for the differences
  for (int32_t row = 0; row < 6; ++row) {
    const float* from = image + static_cast<int64_t>(within(top - 1 + row, level.height)) * level.width;
    for (int32_t column = 0; column < 6; ++column) {
      patch[row][column] = from[within(left - 1 + column, level.width)];
    }
  }
  Intensity<float> columns[4];
  for (int32_t column = 0; column < 4; ++column) {
    Intensity<float> taps[4];
    for (int32_t row = 0; row < 4; ++row) {
      const bool inside =
          within(top + row, level.height) == top + row && within(left + column, level.width) == left + column;
      const float (&here)[6] = patch[row + 1];
      taps[row] = {inside ? here[column + 1] : 0.0f, inside ? centred_difference(here[column], here[column + 2]) : 0.0f,
                   inside ? centred_difference(patch[row][column + 1], patch[row + 2][column + 1]) : 0.0f};
    }
    const float (&down)[4] = vertical.weights;
    columns[column] = {weighted(down, taps[0].value, taps[1].value, taps[2].value, taps[3].value),
                       weighted(down, taps[0].x, taps[1].x, taps[2].x, taps[3].x),
                       weighted(down, taps[0].y, taps[1].y, taps[2].y, taps[3].y)};
  }
  const float (&across)[4] = horizontal.weights;
  return {weighted_by_twos(across, columns[0].value, columns[1].value, columns[2].value, columns[3].value),
          weighted_by_twos(across, columns[0].x, columns[1].x, columns[2].x, columns[3].x),
          weighted_by_twos(across, columns[0].y, columns[1].y, columns[2].y, columns[3].y)};
}

// Pairs of indices that nobody has checked: they lie on the device.
struct FramePairs {
  const int32_t* indices;  // of the pairs at work
  int64_t frame_count;

  __device__ int64_t at(int64_t pair, int32_t which) const {
    const int64_t index = indices[2 * pair + which];
    return index < 0 ? 0 : (index < frame_count ? index : frame_count - 1);
  }
};

// Computes the data terms around the present flow.
__global__ void warp_kernel(const Slots slots, const Images images, const FramePairs pairs, int32_t launch) {
  const Tvl1Level& level = images.level;
  const Slot slot = slots.at(blockIdx.z);
  const int32_t source = slot.turn(launch, level).source;
  if (first_thread_of_pair()) {
    slot.pass_on(launch, source, 0, false, false);
  }
  const float* previous = images.of(pairs.at(blockIdx.z, 0));
  const float* next = images.of(pairs.at(blockIdx.z, 1));
  const WholePair* flows = slot.state(source).flow;
  for_each_pixel(level, [&](int32_t y, int32_t x) {
    const int64_t offset = y * row_stride(level) + x;
    const Pair<float> flow = flows[offset].value;
    const Intensity<float> warped =
        sample(next, level, {static_cast<float>(x) + flow.x, static_cast<float>(y) + flow.y});
    slot.terms[offset].value = data_term(warped, flow, previous[static_cast<int64_t>(y) * level.width + x]);
  });
}

// ---- all of it -----------------------------------------------------------------------------------------------------

// Launches until one fails.
struct Queue {
  void* stream;
  int status;

  template <typename... Parameters, typename... Arguments>
  void add(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments&&... arguments) {
    if (status == TWOSTREAM_SUCCESS) {
      status = launch(kernel, grid, block, 0, stream, std::forward<Arguments>(arguments)...);
    }
  }
};

const dim3 pixel_block(block_columns, block_rows);

void build_pyramids(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, float* base, Queue& queue) {
  const Images full = images_of(base, pyramid, 0);
  queue.add(args.frames.dtype == TWOSTREAM_UINT8 ? read_frames_kernel<uint8_t> : read_frames_kernel<float>,
            pixel_grid(full.level, args.frames.count), pixel_block, args.frames, full);
  for (int index = 1; index < pyramid.count; ++index) {
    const Images images = images_of(base, pyramid, index);
    queue.add(resize_frames_kernel, pixel_grid(images.level, args.frames.count), pixel_block, args.frames.count,
              images_of(base, pyramid, index - 1), images, 1.0f / args.scale_step);
  }
}

// The pairs at work, all in the same launches, which are counted for the sake of the records.
struct Work {
  const twostream_tvl1_flow_args& args;
  const Tvl1Pyramid& pyramid;
  Slots slots;
  int64_t first;  // pair
  int64_t count;
  int64_t resident_blocks;
  int32_t launches;
  Queue& queue;

  dim3 grid(const Tvl1Level& level) const { return pixel_grid(level, count); }
};

void iterate(Work& work, const Tvl1Level& level, int32_t most, bool filtered) {
  const Tiles tiles = tiles_of(level);
  const int64_t blocks = std::min(tiles.count() * work.count, work.resident_blocks);
  work.queue.add(iterate_kernel, dim3(static_cast<unsigned int>(blocks)), dim3(tile_width, strips), work.slots,
                 static_cast<int32_t>(work.count), level, tiles, tvl1_step(work.args), most, filtered, work.launches);
  work.launches = (work.launches + 1) % record_count;
}

// All iterations of one warp, and one launch more for pairs that went too far in the last.
void iterate_to_the_end(Work& work, const Tvl1Level& level) {
  const twostream_tvl1_flow_args& args = work.args;
  const int64_t stretch = args.median > 0 ? args.median_every : args.iterations;
  for (int64_t first = 0; first < args.iterations; first += stretch) {
    if (args.median > 0) {
      work.queue.add(args.median == 3 ? filter_kernel<3> : filter_kernel<5>, work.grid(level), pixel_block, work.slots,
                     level, work.launches);
    }
    const int64_t end = first + stretch < args.iterations ? first + stretch : args.iterations;
    for (int64_t iteration = first; iteration < end; iteration += tvl1_group) {
      const int64_t left = end - iteration;
      iterate(work, level, static_cast<int32_t>(left < tvl1_group ? left : tvl1_group),
              args.median > 0 && iteration == first);
    }
  }
  iterate(work, level, 0, false);
}

void resize_flow(Work& work, const Resize& resize) {
  work.queue.add(resize_flow_kernel, work.grid(resize.to), pixel_block, work.slots, resize, work.launches);
  work.launches = (work.launches + 1) % record_count;
}

// Leaves the initial flow on the coarsest level.
void begin(Work& work) {
  const twostream_tvl1_flow_args& args = work.args;
  const Tvl1Level* levels = work.pyramid.levels;
  const int coarsest = work.pyramid.count - 1;
  const bool has_init = args.init.data != nullptr;
  const Tvl1Level& level = levels[has_init ? 0 : coarsest];
  work.queue.add(begin_kernel, work.grid(level), pixel_block, work.slots, level, args.init, work.first, work.launches);
  work.launches = (work.launches + 1) % record_count;
  if (has_init) {
    const float scale = 1.0f / args.scale_step;
    for (int index = 1; index <= coarsest; ++index) {
      resize_flow(work, {levels[index - 1], levels[index], scale, scale, args.scale_step});
    }
    resize_flow(work, {levels[coarsest], levels[coarsest], 1.0f, 1.0f, 1.0f});
  }
}

float ratio(int32_t length, int32_t other) { return static_cast<float>(length) / static_cast<float>(other); }

void solve_pairs(Work& work, float* frames) {
  const twostream_tvl1_flow_args& args = work.args;
  const FramePairs pairs{args.pairs + 2 * work.first, args.frames.count};
  begin(work);
  for (int index = work.pyramid.count - 1; index >= 0; --index) {
    const Tvl1Level& level = work.pyramid.levels[index];
    if (index + 1 < work.pyramid.count) {
      const Tvl1Level& coarser = work.pyramid.levels[index + 1];
      resize_flow(work, {coarser, level, ratio(coarser.height, level.height), ratio(coarser.width, level.width),
                         1.0f / args.scale_step});
    }
    for (int32_t warp = 0; warp < args.warps; ++warp) {
      work.queue.add(warp_kernel, work.grid(level), pixel_block, work.slots, images_of(frames, work.pyramid, index),
                     pairs, work.launches);
      work.launches = (work.launches + 1) % record_count;
      iterate_to_the_end(work, level);
    }
  }
  work.queue.add(write_kernel, work.grid(work.pyramid.levels[0]), pixel_block, work.slots, work.pyramid.levels[0],
                 args.output, work.first, work.launches);
}

}  // namespace

int64_t twostream_tvl1_flow_workspace_cuda(const twostream_tvl1_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  const Slots slots = slots_for(pyramid.levels[0], nullptr);
  return frames_bytes(*args, pyramid) + most_at_work(*args) * slots.bytes();
}

int twostream_tvl1_flow_cuda(const twostream_tvl1_flow_args* args, int device, void* stream) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const DeviceGuard guard(device);
  if (guard.status() != TWOSTREAM_SUCCESS || args->pair_count == 0) {
    return guard.status();
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  auto* frames = static_cast<float*>(args->workspace);
  const Slots slots = slots_for(pyramid.levels[0], static_cast<char*>(args->workspace) + frames_bytes(*args, pyramid));
  int multiprocessors = 0;
  Queue queue{stream,
              static_cast<int>(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device))};
  build_pyramids(*args, pyramid, frames, queue);
  const int64_t most = most_at_work(*args);
  for (int64_t first = 0; first < args->pair_count; first += most) {
    const int64_t left = args->pair_count - first;
    Work work{*args, pyramid, slots, first, std::min(left, most), multiprocessors * blocks_per_multiprocessor,
              0,     queue};
    solve_pairs(work, frames);
  }
  return queue.status;
}
