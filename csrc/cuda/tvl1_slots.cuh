// SPDX-License-Identifier: BSD-3-Clause
// A pair of frames at work has a slot of the workspace: two states of its variables, of which one is certain and the
// other is being made, the data terms, and records of how far it has come. Whether a pair has converged is known on the
// device alone, while the host goes on launching: each launch reads one record and completes the next one. The twin is
// cpu/tvl1_slots.h.
#pragma once

#include "core/tvl1_flow.h"
#include "core/tvl1_pyramid.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

namespace twostream {

constexpr int32_t tvl1_group = 4;  // iterations in a launch, at most

using WholePair = Whole<Pair<float>>;
using WholeDuals = Whole<Duals<float>>;
using WholeTerm = Whole<DataTerm<float>>;

// Rows begin at multiples of 32 bytes, the least that is moved.
TWOSTREAM_HD int64_t row_stride(const Tvl1Level& level) { return (static_cast<int64_t>(level.width) + 3) / 4 * 4; }

// ---- records -------------------------------------------------------------------------------------------------------

struct alignas(16) Record {
  int32_t source;                         // which state is certain
  int32_t tried;                          // iterations that the launch before made from it, into the other state
  int32_t filtered;                       // whether those began at the filtered flow
  int32_t converged;                      // whether nothing more is to be done at this warp
  unsigned long long change[tvl1_group];  // in each of the iterations tried
};

// What a record means to the launch that reads it. Where convergence came before the last of the iterations tried, they
// are repeated up to there, from the state that is still certain.
struct Turn {
  int32_t source;
  int32_t repeat;
  bool filtered;
  bool converged;
};

TWOSTREAM_HD Turn turn_after(const Record& record, int64_t pixels) {
  for (int32_t place = 0; place < tvl1_group; ++place) {
    if (place < record.tried && has_converged(static_cast<int64_t>(record.change[place]), pixels)) {
      const bool last = place + 1 == record.tried;
      return {last ? 1 - record.source : record.source, last ? 0 : place + 1, record.filtered != 0, last};
    }
  }
  return {record.tried > 0 ? 1 - record.source : record.source, 0, false, record.converged != 0};
}

// Launch n reads record n, writes record n + 1 and adds its changes there, and clears the changes of record n + 2, all
// modulo 3: no block reads what another block of the same launch writes.
constexpr int32_t record_count = 3;

// One thread of the launch writes a pair's next record; blockIdx.z is the pair.
__device__ inline bool first_thread_of_pair() {
  return blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0 && threadIdx.y == 0;
}

// ---- slots ---------------------------------------------------------------------------------------------------------

struct State {
  WholePair* flow;
  WholeDuals* duals;
};

struct Slot {
  Record* records;
  WholeTerm* terms;
  WholeDuals* duals;    // of both states
  WholePair* flow;      // of both states
  WholePair* filtered;  // flow
  int64_t pixels;       // of a plane

  TWOSTREAM_HD State state(int32_t which) const { return {flow + which * pixels, duals + which * pixels}; }
  TWOSTREAM_HD Turn turn(int32_t launch, const Tvl1Level& level) const {
    const Record record = records[launch % record_count];
    return turn_after(record, level.pixels());
  }
  TWOSTREAM_HD Record& next_record(int32_t launch) const { return records[(launch + 1) % record_count]; }

  // For one thread of the launch.
  TWOSTREAM_HD void pass_on(int32_t launch, int32_t source, int32_t tried, bool is_filtered, bool converged) const {
    Record& next = next_record(launch);
    next.source = source;
    next.tried = tried;
    next.filtered = is_filtered ? 1 : 0;
    next.converged = converged ? 1 : 0;
    Record& later = next_record(launch + 1);
    for (unsigned long long& change : later.change) {
      change = 0;
    }
  }
};

struct Slots {
  char* base;
  int64_t pixels;  // of a plane

  TWOSTREAM_HD int64_t bytes() const {  // of a slot
    return record_bytes +
           pixels * static_cast<int64_t>(sizeof(WholeTerm) + 2 * sizeof(WholeDuals) + 3 * sizeof(WholePair));
  }
  TWOSTREAM_HD Slot at(int64_t index) const {
    char* own = base + index * bytes();
    auto* terms = reinterpret_cast<WholeTerm*>(own + record_bytes);
    auto* duals = reinterpret_cast<WholeDuals*>(terms + pixels);
    auto* flow = reinterpret_cast<WholePair*>(duals + 2 * pixels);
    return {reinterpret_cast<Record*>(own), terms, duals, flow, flow + 2 * pixels, pixels};
  }

  static constexpr int64_t record_bytes = 256;
};
static_assert(record_count * sizeof(Record) <= Slots::record_bytes, "the records have their place");

inline Slots slots_for(const Tvl1Level& largest, char* base) {
  const int64_t pixels = largest.height * row_stride(largest);
  return {base, (pixels + 31) / 32 * 32};
}

}  // namespace twostream
