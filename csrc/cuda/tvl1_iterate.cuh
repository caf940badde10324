// SPDX-License-Identifier: BSD-3-Clause
// The iterations of TV-L1 flow. A block loads a tile of pixels, a thread four of a column, and keeps all their ten
// values in registers for several iterations; neighbours in other threads show theirs through shared memory. What lies
// outside the tile is missing, so that with each iteration one more ring of the tile's pixels goes wrong: tiles overlap
// by that much on each side, and each pixel is stored by the one tile that owns it. The twin is cpu/tvl1_iterate.h.
#pragma once

#include "cuda/tvl1_pyramid.cuh"
#include "cuda/tvl1_slots.cuh"

namespace twostream {

constexpr int32_t strip_height = 4;  // pixels of a thread
constexpr int32_t strips = 8;
constexpr int32_t tile_height = strip_height * strips;
constexpr int32_t tile_width = 64;
constexpr int32_t tile_threads = tile_width * strips;
constexpr int32_t halo = tvl1_group;
constexpr int32_t blocks_per_multiprocessor = 2;

// Tiles along an axis. Those at its ends lose nothing to a halo there.
inline int32_t tiles_along(int32_t length, int32_t tile) {
  const int32_t step = tile - 2 * halo;
  return length <= tile ? 1 : 1 + (length - tile + step - 1) / step;
}

struct Tiles {
  int32_t across;
  int32_t down;

  TWOSTREAM_HD int64_t count() const { return static_cast<int64_t>(across) * down; }
};

inline Tiles tiles_of(const Tvl1Level& level) {
  return {tiles_along(level.width, tile_width), tiles_along(level.height, tile_height)};
}

// Where a tile begins along an axis, and which of its pixels it owns.
struct TileSpan {
  int32_t origin;
  int32_t first;
  int32_t end;
};

TWOSTREAM_HD TileSpan tile_span(int32_t index, int32_t count, int32_t length, int32_t tile) {
  const int32_t origin = index * (tile - 2 * halo);
  return {origin, index == 0 ? 0 : origin + halo, index == count - 1 ? length : origin + tile - halo};
}

struct Pixel {
  Pair<float> flow;
  Duals<float> duals;
  DataTerm<float> term;
};

// What the threads of a tile show each other.
struct Exchange {
  WholePair flow[tile_height][tile_width];
  WholePair across[tile_height][1 + tile_width];  // of each component's dual variable, its x, behind a 0 ...
  WholePair down[1 + strips][tile_width];         // ... and its y, at the strip's last row, below a 0
  uint32_t change[tvl1_group][tile_threads];
};

// A thread's place in the tile and in the image.
struct Place {
  int32_t column;  // in the tile
  int32_t row;     // of the strip's first pixel, in the tile
  int32_t x;
  int32_t y;
  int32_t owned;  // which pixels of the strip the tile owns: from this ...
  int32_t end;    // ... up to this

  __device__ bool owns(int32_t step) const { return step >= owned && step < end; }
};

__device__ inline Place place_in(const Tvl1Level& level, const Tiles& tiles, int32_t tile) {
  const TileSpan columns = tile_span(tile % tiles.across, tiles.across, level.width, tile_width);
  const TileSpan rows = tile_span(tile / tiles.across, tiles.down, level.height, tile_height);
  const auto column = static_cast<int32_t>(threadIdx.x);
  const auto row = static_cast<int32_t>(threadIdx.y) * strip_height;
  const int32_t x = columns.origin + column;
  const int32_t y = rows.origin + row;
  return {column, row, x, y, rows.first - y, x >= columns.first && x < columns.end ? rows.end - y : 0};
}

__device__ inline void show_duals(const Pixel (&pixels)[strip_height], const Place& place, Exchange& exchange) {
  for (int32_t step = 0; step < strip_height; ++step) {
    exchange.across[place.row + step][1 + place.column].value = {pixels[step].duals.x.x, pixels[step].duals.y.x};
  }
  const Pixel& last = pixels[strip_height - 1];
  exchange.down[1 + place.row / strip_height][place.column].value = {last.duals.x.y, last.duals.y.y};
}

__device__ inline void clear_borders(const Place& place, Exchange& exchange) {
  for (int32_t step = 0; step < strip_height && place.column == 0; ++step) {
    exchange.across[place.row + step][0].value = {0.0f, 0.0f};
  }
  if (place.row == 0) {
    exchange.down[0][place.column].value = {0.0f, 0.0f};
  }
}

// Returns how much the flow of the owned pixels changed, in units.
__device__ inline uint32_t primal_steps(Pixel (&pixels)[strip_height], const Place& place,
                                        const Tvl1Step<float>& weights, Exchange& exchange) {
  uint32_t change = 0;
  Pair<float> above = exchange.down[place.row / strip_height][place.column].value;
  for (int32_t step = 0; step < strip_height; ++step) {
    Pixel& pixel = pixels[step];
    const Pair<float> left = exchange.across[place.row + step][place.column].value;
    const Pair<float> diverging{divergence(pixel.duals.x, left.x, above.x), divergence(pixel.duals.y, left.y, above.y)};
    const Pair<float> after = primal(pixel.term, pixel.flow, diverging, weights);
    const auto units = static_cast<uint32_t>(change_units(pixel.flow, after, weights));
    change += place.owns(step) ? units : 0;
    pixel.flow = after;
    exchange.flow[place.row + step][place.column].value = after;
    above = {pixel.duals.x.y, pixel.duals.y.y};
  }
  return change;
}

__device__ inline void dual_steps(Pixel (&pixels)[strip_height], const Place& place, const Tvl1Level& level,
                                  const Tvl1Step<float>& weights, const Exchange& exchange) {
  const bool last_column = place.column == tile_width - 1 || place.x == level.width - 1;
  const int32_t last_row = level.height - 1 - place.y;
  const int32_t below_strip = place.row + strip_height < tile_height ? place.row + strip_height : tile_height - 1;
  for (int32_t step = 0; step < strip_height; ++step) {
    Pixel& pixel = pixels[step];
    const Pair<float> right = exchange.flow[place.row + step][last_column ? place.column : place.column + 1].value;
    Pair<float> below = step + 1 < strip_height ? pixels[(step + 1) % strip_height].flow
                                                : exchange.flow[below_strip][place.column].value;
    if (step == last_row) {
      below = pixel.flow;
    }
    const Pair<float> here = pixel.flow;
    const Duals<float> gradients{{right.x - here.x, below.x - here.x}, {right.y - here.y, below.y - here.y}};
    pixel.duals = dual(pixel.duals, gradients, weights);
  }
}

// Adds up what the threads wrote in `exchange.change`. Sums of 64 threads' four pixels stay below 2^32.
__device__ inline void add_changes(Exchange& exchange, int32_t count, unsigned long long* change) {
  constexpr int32_t parts = tile_threads / tvl1_group;
  constexpr int32_t sums = 8;
  const auto thread = static_cast<int32_t>(threadIdx.y * tile_width + threadIdx.x);
  uint32_t (&changes)[tile_threads] = exchange.change[thread / parts];
  const int32_t part = thread % parts;
  for (int32_t other = part + parts; other < tile_threads; other += parts) {
    changes[part] += changes[other];
  }
  __syncthreads();
  if (part < sums && thread / parts < count) {
    uint32_t sum = 0;
    for (int32_t other = part; other < parts; other += sums) {
      sum += changes[other];
    }
    atomicAdd(change + thread / parts, static_cast<unsigned long long>(sum));
  }
}

// What a launch does for one pair.
struct Plan {
  int32_t pair;
  int16_t source;
  int8_t count;  // of iterations
  int8_t filtered;
};

constexpr int32_t most_pairs = 256;  // at work

struct Plans {
  int32_t working;  // pairs
  Plan of[most_pairs];
  uint8_t works[most_pairs];
};

// Every block finds the same plans, in the order of the pairs. Those that have not converged make `most` iterations,
// whose first finds filtered flow if `filtered`; those that went too far repeat what they were told to.
__device__ inline void make_plans(const Slots& slots, int32_t pairs, const Tvl1Level& level, int32_t most,
                                  bool filtered, int32_t launch, Plans& plans) {
  const auto pair = static_cast<int32_t>(threadIdx.y * tile_width + threadIdx.x);
  Plan plan{};
  if (pair < pairs) {
    const Slot slot = slots.at(pair);
    const Turn turn = slot.turn(launch, level);
    const bool repeat = turn.repeat > 0;
    const int32_t count = repeat ? turn.repeat : (turn.converged ? 0 : most);
    const bool from_filtered = repeat ? turn.filtered : filtered;
    plan = {pair, static_cast<int16_t>(turn.source), static_cast<int8_t>(count), static_cast<int8_t>(from_filtered)};
    plans.works[pair] = count > 0 ? 1 : 0;
    if (blockIdx.x == 0) {
      slot.pass_on(launch, turn.source, count, from_filtered, turn.converged);
    }
  }
  __syncthreads();
  if (pair < pairs) {
    int32_t place = 0;
    for (int32_t before = 0; before < pair; ++before) {
      place += plans.works[before];
    }
    if (plan.count > 0) {
      plans.of[place] = plan;
    }
    if (pair == pairs - 1) {
      plans.working = place + plans.works[pair];
    }
  }
  __syncthreads();
}

// Of `exchange`, the sums of the changes alone are still read at the end, and the next tile's come behind a barrier.
__device__ inline void iterate_tile(const Slot& slot, const Plan& plan, const Tvl1Level& level, const Place& place,
                                    const Tvl1Step<float>& weights, int32_t launch, Exchange& exchange) {
  const bool inside = place.x < level.width && place.y < level.height;
  clear_borders(place, exchange);
  Pixel pixels[strip_height];
  if (inside) {
    const State from = slot.state(plan.source);
    const WholePair* flow = plan.filtered != 0 ? slot.filtered : from.flow;
    for (int32_t step = 0; step < strip_height; ++step) {
      const int64_t offset = within(place.y + step, level.height) * row_stride(level) + place.x;
      pixels[step] = {load(flow + offset), load(from.duals + offset), load(slot.terms + offset)};
    }
    show_duals(pixels, place, exchange);
  }
  __syncthreads();
  for (int32_t iteration = 0; iteration < plan.count; ++iteration) {
    const uint32_t change = inside ? primal_steps(pixels, place, weights, exchange) : 0;
    exchange.change[iteration][threadIdx.y * tile_width + threadIdx.x] = change;
    __syncthreads();
    if (inside) {
      dual_steps(pixels, place, level, weights, exchange);
      show_duals(pixels, place, exchange);
    }
    __syncthreads();
  }
  const State to = slot.state(1 - plan.source);
  for (int32_t step = 0; step < strip_height; ++step) {
    if (inside && place.owns(step)) {
      const int64_t offset = (place.y + step) * row_stride(level) + place.x;
      to.flow[offset] = {pixels[step].flow};
      to.duals[offset] = {pixels[step].duals};
    }
  }
  add_changes(exchange, plan.count, slot.next_record(launch).change);
}

// As many blocks as the device holds at a time share the tiles of the pairs that have something to do: launches that
// come after the last pair has converged, as most do, end at once.
static __global__ void __launch_bounds__(tile_threads, blocks_per_multiprocessor)
    iterate_kernel(const Slots slots, int32_t pairs, const Tvl1Level level, const Tiles tiles,
                   const Tvl1Step<float> weights, int32_t most, bool filtered, int32_t launch) {
  __shared__ Plans plans;
  __shared__ Exchange exchange;
  make_plans(slots, pairs, level, most, filtered, launch, plans);
  const int64_t all = plans.working * tiles.count();
  for (int64_t tile = blockIdx.x; tile < all; tile += gridDim.x) {
    const Plan plan = plans.of[tile / tiles.count()];
    const Place place = place_in(level, tiles, static_cast<int32_t>(tile % tiles.count()));
    iterate_tile(slots.at(plan.pair), plan, level, place, weights, launch, exchange);
  }
}

// The median filter of the flow, for the pairs that go on from here.
template <int side>
__global__ void filter_kernel(const Slots slots, const Tvl1Level level, int32_t launch) {
  const Slot slot = slots.at(blockIdx.z);
  const Turn turn = slot.turn(launch, level);
  if (turn.repeat > 0 || turn.converged) {
    return;
  }
  const WholePair* flow = slot.state(turn.source).flow;
  for_each_pixel(level, [&](int32_t y, int32_t x) {
    float xs[side * side];
    float ys[side * side];
    for (int place = 0; place < side * side; ++place) {
      const int32_t row = within(y + place / side - side / 2, level.height);
      const int32_t column = within(x + place % side - side / 2, level.width);
      const Pair<float> each = flow[row * row_stride(level) + column].value;
      xs[place] = each.x;
      ys[place] = each.y;
    }
    slot.filtered[y * row_stride(level) + x].value = {median_of(xs), median_of(ys)};
  });
}

}  // namespace twostream
