// SPDX-License-Identifier: BSD-3-Clause
// The pyramids of all frames are built once; then some pairs at a time go through levels, warps and iterations
// together. The twin is cpu/tvl1_flow.cpp, which gives the same bits.
//
// The host cannot ask whether a pair has converged: that would make it wait for the device, and a CUDA graph could not
// hold the work. It therefore launches all iterations that the arguments allow, and a launch finds in the records which
// pairs still have something to do (cuda/tvl1_slots.cuh). On real clips most launches find none and end at once, so the
// cost of launching is the smaller, the more pairs share it.
//
// What the rest is bound by: an iteration of a pixel is 115 instructions as compiled for sm_90 and moves 22 bytes (40
// loaded in tiles that overlap, 24 stored, for four iterations). On an H100 (33.5 T instructions/s and 3.35 TB/s) the
// two limits lie close together, so neither fewer bytes nor fewer instructions alone would help.
#include <algorithm>

#include "core/tvl1_flow.h"
#include "core/tvl1_pyramid.h"
#include "core/validate.h"
#include "cuda/launch.h"
#include "cuda/tvl1_iterate.cuh"
#include "cuda/tvl1_pyramid.cuh"
#include "cuda/tvl1_slots.cuh"
#include "cuda/tvl1_warp.cuh"
#include "twostream/tvl1_flow.h"

using namespace twostream;

namespace {

// ---- flow between levels -------------------------------------------------------------------------------------------

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
__global__ void resize_flow_kernel(const Slots slots, const Tvl1Resize sizes, int32_t launch) {
  const Slot slot = slots.at(blockIdx.z);
  const int32_t source = slot.turn(launch, sizes.from).source;
  if (first_thread_of_pair()) {
    slot.pass_on(launch, 1 - source, 0, false, false);
  }
  const WholePair* from = slot.state(source).flow;
  const State to = slot.state(1 - source);
  for_each_pixel(sizes.to, [&](int32_t y, int32_t x) {
    const LinearTap vertical = linear_tap(y, sizes.scale_y, sizes.from.height);
    const LinearTap horizontal = linear_tap(x, sizes.scale_x, sizes.from.width);
    const auto flow = [&](int32_t row, int32_t column) { return from[row * row_stride(sizes.from) + column].value; };
    const auto along_x = [&](int32_t row, int32_t column) { return flow(row, column).x; };
    const auto along_y = [&](int32_t row, int32_t column) { return flow(row, column).y; };
    const int64_t offset = y * row_stride(sizes.to) + x;
    to.flow[offset].value = {resized_by(along_x, vertical, horizontal, sizes.factor),
                             resized_by(along_y, vertical, horizontal, sizes.factor)};
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

// ---- launching -----------------------------------------------------------------------------------------------------

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
  for (int finer = 0; finer + 1 < pyramid.count; ++finer) {
    const Images images = images_of(base, pyramid, finer + 1);
    queue.add(resize_frames_kernel, pixel_grid(images.level, args.frames.count), pixel_block, args.frames.count,
              images_of(base, pyramid, finer), images, shrink_image(pyramid, finer, args.scale_step));
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

void resize_flow(Work& work, const Tvl1Resize& sizes) {
  work.queue.add(resize_flow_kernel, work.grid(sizes.to), pixel_block, work.slots, sizes, work.launches);
  work.launches = (work.launches + 1) % record_count;
}

// Leaves the initial flow on the coarsest level.
void begin(Work& work) {
  const twostream_tvl1_flow_args& args = work.args;
  const Tvl1Pyramid& pyramid = work.pyramid;
  const int coarsest = pyramid.count - 1;
  const bool has_init = args.init.data != nullptr;
  const Tvl1Level& level = pyramid.levels[has_init ? 0 : coarsest];
  work.queue.add(begin_kernel, work.grid(level), pixel_block, work.slots, level, args.init, work.first, work.launches);
  work.launches = (work.launches + 1) % record_count;
  if (has_init) {
    for (int finer = 0; finer < coarsest; ++finer) {
      resize_flow(work, shrink_flow(pyramid, finer, args.scale_step));
    }
    resize_flow(work, keep_flow(pyramid.levels[coarsest]));
  }
}

void solve_pairs(Work& work, float* frames) {
  const twostream_tvl1_flow_args& args = work.args;
  begin(work);
  for (int index = work.pyramid.count - 1; index >= 0; --index) {
    const Tvl1Level& level = work.pyramid.levels[index];
    if (index + 1 < work.pyramid.count) {
      resize_flow(work, enlarge_flow(work.pyramid, index + 1, args.scale_step));
    }
    const int32_t warps = index >= work.pyramid.finest ? args.warps : 0;
    for (int32_t warp = 0; warp < warps; ++warp) {
      work.queue.add(warp_kernel, work.grid(level), pixel_block, work.slots, images_of(frames, work.pyramid, index),
                     args.pairs + 2 * work.first, args.frames.count, work.launches);
      work.launches = (work.launches + 1) % record_count;
      iterate_to_the_end(work, level);
    }
  }
  work.queue.add(write_kernel, work.grid(work.pyramid.levels[0]), pixel_block, work.slots, work.pyramid.levels[0],
                 args.output, work.first, work.launches);
}

int64_t most_at_work(const twostream_tvl1_flow_args& args) { return std::min(args.concurrent_pairs, most_pairs); }

// As many pairs at a time as the workspace has slots for.
void solve_all(const twostream_tvl1_flow_args& args, int64_t resident_blocks, Queue& queue) {
  const Tvl1Pyramid pyramid = tvl1_pyramid(args);
  auto* frames = static_cast<float*>(args.workspace);
  const Slots slots = slots_for(pyramid.levels[0], reinterpret_cast<char*>(frames + frames_size(args, pyramid)));
  build_pyramids(args, pyramid, frames, queue);
  const int64_t most = most_at_work(args);
  for (int64_t first = 0; first < args.pair_count; first += most) {
    Work work{args, pyramid, slots, first, std::min(args.pair_count - first, most), resident_blocks, 0, queue};
    solve_pairs(work, frames);
  }
}

}  // namespace

int64_t twostream_tvl1_flow_workspace_cuda(const twostream_tvl1_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  const int64_t frames_bytes = frames_size(*args, pyramid) * static_cast<int64_t>(sizeof(float));
  return frames_bytes + most_at_work(*args) * slots_for(pyramid.levels[0], nullptr).bytes();
}

int twostream_tvl1_flow_cuda(const twostream_tvl1_flow_args* args, int device, void* stream) {
  return on_device(*args, device, [&] {
    if (args->pair_count == 0) {
      return static_cast<int>(TWOSTREAM_SUCCESS);
    }
    int multiprocessors = 0;
    Queue queue{stream,
                static_cast<int>(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device))};
    solve_all(*args, multiprocessors * blocks_per_multiprocessor, queue);
    return queue.status;
  });
}
