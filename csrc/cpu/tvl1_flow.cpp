// SPDX-License-Identifier: BSD-3-Clause
// TV-L1 flow of pairs of frames: the pyramids of all frames first, then pair after pair, each from the coarsest level
// to the finest. The twin is cuda/tvl1_flow.cu, which gives the same bits.
#include "core/tvl1_flow.h"

#include <atomic>

#include "core/tvl1_pyramid.h"
#include "core/validate.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/tvl1_iterate.h"
#include "cpu/tvl1_pyramid.h"
#include "cpu/tvl1_rows.h"
#include "cpu/tvl1_slots.h"
#include "cpu/tvl1_warp.h"

using namespace twostream;

namespace {

// The flow of a level from that of another, which the slot's spare copy holds.
void resize_flow(const PairSlot& slot, const Tvl1Resize& sizes, const Variables& variables, const Sharing& sharing) {
  for (const Plane plane : {flow_x, flow_y}) {
    const float* source = slot.flow + (plane == flow_x ? 0 : sizes.from.pixels());
    resize(source, sizes, sharing, [&](int32_t y) { return variables.row(plane, y); });
  }
}

// The same to the fields of full size.
void resize_to_output(const PairSlot& slot, const Tvl1Resize& sizes, const twostream_flow_fields& fields, int64_t pair,
                      const Sharing& sharing) {
  for (const int32_t component : {0, 1}) {
    float* field = fields.data + pair * fields.field_stride + component * fields.component_stride;
    resize(
        slot.flow + component * sizes.from.pixels(), sizes, sharing,
        [&](int32_t y) { return field + y * fields.row_stride; }, fields.column_stride);
  }
}

void read_flow(const twostream_flow_fields& fields, int64_t pair, const Variables& variables) {
  for (int32_t y = 0; y < variables.level.height; ++y) {
    const float* row = fields.data + pair * fields.field_stride + y * fields.row_stride;
    for (int32_t x = 0; x < variables.level.width; ++x) {
      variables.row(flow_x, y)[x] = row[x * fields.column_stride];
      variables.row(flow_y, y)[x] = row[x * fields.column_stride + fields.component_stride];
    }
  }
}

void write_flow(const Variables& variables, const twostream_flow_fields& fields, int64_t pair, const Sharing& sharing) {
  sharing.each_row(variables.level, [&](int32_t y) {
    float* row = fields.data + pair * fields.field_stride + y * fields.row_stride;
    for (int32_t x = 0; x < variables.level.width; ++x) {
      row[x * fields.column_stride] = variables.row(flow_x, y)[x];
      row[x * fields.column_stride + fields.component_stride] = variables.row(flow_y, y)[x];
    }
  });
}

// Leaves the initial flow of the coarsest level in `slot.flow`.
void shrink_init(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, int64_t pair, const PairSlot& slot,
                 const Sharing& sharing) {
  const Variables full = variables_of(slot, pyramid.levels[0]);
  read_flow(args.init, pair, full);
  save_flow(full, slot.flow);
  for (int finer = 0; finer + 1 < pyramid.count; ++finer) {
    const Variables variables = variables_of(slot, pyramid.levels[finer + 1]);
    resize_flow(slot, shrink_flow(pyramid, finer, args.scale_step), variables, sharing);
    save_flow(variables, slot.flow);
  }
}

// All variables of a level before its first warp: the flow so far, and zeros.
Variables begin_level(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, int index, const PairSlot& slot,
                      const Sharing& sharing) {
  const Variables variables = clear_variables(slot, pyramid.levels[index]);
  if (index + 1 < pyramid.count) {
    resize_flow(slot, enlarge_flow(pyramid, index + 1, args.scale_step), variables, sharing);
  } else if (args.init.data != nullptr) {
    resize_flow(slot, keep_flow(pyramid.levels[index]), variables, sharing);
  }
  return variables;
}

void solve_pair(const twostream_tvl1_flow_args& args, const Tvl1Pyramid& pyramid, const float* frames, int64_t pair,
                const PairSlot& slot, const Sharing& sharing) {
  const auto frame = [&](int32_t which) {
    return frames + frame_of_pair(args.pairs, pair, which, args.frames.count) * frame_size(pyramid);
  };
  if (args.init.data != nullptr) {
    shrink_init(args, pyramid, pair, slot, sharing);
  }
  for (int index = pyramid.count - 1; index >= pyramid.finest; --index) {
    const Tvl1Level& level = pyramid.levels[index];
    const Variables variables = begin_level(args, pyramid, index, slot, sharing);
    const PixelVectors next{slot.vectors, vectors_stride(level.width)};
    fill_vectors(frame(1) + image_offset(pyramid, index), level, next, sharing);
    const float* previous = frame(0) + image_offset(pyramid, index);
    for (int32_t warp = 0; warp < args.warps; ++warp) {
      sharing.each_row(
          level, [&](int32_t y) { warp_row(previous + static_cast<int64_t>(y) * level.width, next, variables, y); });
      iterate(args, variables, slot.flow, sharing);
    }
    save_flow(variables, slot.flow);
  }
  for (int index = pyramid.finest - 1; index >= 1; --index) {
    const Variables variables = variables_of(slot, pyramid.levels[index]);
    resize_flow(slot, enlarge_flow(pyramid, index + 1, args.scale_step), variables, sharing);
    save_flow(variables, slot.flow);
  }
  if (pyramid.finest > 0) {
    resize_to_output(slot, enlarge_flow(pyramid, 1, args.scale_step), args.output, pair, sharing);
  } else {
    write_flow(variables_of(slot, pyramid.levels[0]), args.output, pair, sharing);
  }
}

}  // namespace

int64_t TWOSTREAM_CPU(tvl1_flow_workspace)(const twostream_tvl1_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  const int64_t floats = frames_size(*args, pyramid) + args->concurrent_pairs * slot_size(pyramid.levels[0]);
  return floats * static_cast<int64_t>(sizeof(float));
}

int TWOSTREAM_CPU(tvl1_flow)(const twostream_tvl1_flow_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const Tvl1Pyramid pyramid = tvl1_pyramid(*args);
  auto* frames = static_cast<float*>(args->workspace);
  parallel_for(args->frames.count, grain_for(pyramid.levels[0].pixels()),
               [&](int64_t index) { build_pyramid(*args, pyramid, index, frames + index * frame_size(pyramid)); });
  float* slots = frames + frames_size(*args, pyramid);
  const Sharing sharing{args->share_rows != 0};
  std::atomic<int64_t> next{0};
  const auto solve_on = [&](int64_t slot) {
    const PairSlot own = slot_at(slots + slot * slot_size(pyramid.levels[0]), pyramid.levels[0]);
    for (int64_t pair = next++; pair < args->pair_count; pair = next++) {
      solve_pair(*args, pyramid, frames, pair, own, sharing);
    }
  };
  if (sharing.rows) {
    solve_on(0);
  } else {
    parallel_for(args->concurrent_pairs, 1, solve_on);
  }
  return TWOSTREAM_SUCCESS;
}
