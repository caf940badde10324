// SPDX-License-Identifier: BSD-3-Clause
// Reads every field once and a little of it once more: the rounds on the grid work on a copy of its pixels in the
// first-level cache. A field is shared among threads in bands, and bands are added up in order, so that the number of
// threads changes nothing; nor does the width of the processor's registers, as eight pixels are always taken together.
#include "twostream/camera_motion.h"

#include <algorithm>
#include <type_traits>

#include "core/camera_motion.h"
#include "core/validate.h"
#include "cpu/fields.h"
#include "cpu/isa.h"
#include "cpu/lanes.h"

using namespace twostream;

namespace {

constexpr int32_t group = 8;  // pixels side by side
constexpr int32_t parts = group / lane_count;

// A row's sums are float while it is read: no longer than these many pixels.
constexpr int32_t longest_run = 4 * tile_pixels;

constexpr int32_t bands = 16;  // of a field

// Their sums lie on the stack, as a kernel allocates nothing.
constexpr int64_t fields_together = 16;

struct Group {
  Lanes lanes[parts];
};

// The first `count` of eight values, zeros behind.
template <typename In>
Group load_group(const In* from, int32_t count) {
#if defined(__AVX2__)
  if (count >= group) {
    return {Lanes(load_eight<false>(from))};
  }
#endif
  float values[group] = {};
  for (int32_t place = 0; place < std::min(count, group); ++place) {
    values[place] = to_float(from[place]);
  }
  Group loaded;
  for (int32_t part = 0; part < parts; ++part) {
    loaded.lanes[part] = load_lanes(values + part * lane_count);
  }
  return loaded;
}

// Pixels of one row, whose columns are `stride` apart.
struct Run {
  RowAffine x;  // to the residual
  RowAffine y;
  float scale;
  float first;  // column, counted from the centre
  float stride;
  float unit;
};

// Neighbouring pixels: their coordinate, their residuals, and 0 for those behind the run.
struct Pixels {
  Lanes u;
  Lanes x;
  Lanes y;
  Lanes kept;
};

Lanes residual(const RowAffine& affine, Lanes u, Lanes value) {
  return multiply_add(value, Lanes(affine.scale), multiply_add(Lanes(affine.along_x), u, Lanes(affine.offset)));
}

// Calls body(pixels, part, is_last); only in the last group may there be pixels that are not to be kept.
template <typename IsLast, typename Body>
void for_each_part(const Run& run, const Group& columns, const Group& x, const Group& y, int32_t count, IsLast is_last,
                   const Body& body) {
  static constexpr float ones[2 * group] = {1, 1, 1, 1, 1, 1, 1, 1};
  for (int32_t part = 0; part < parts; ++part) {
    const Lanes u = columns.lanes[part] * Lanes(run.unit);
    const Lanes kept = is_last ? load_lanes(ones + group - count + part * lane_count) : Lanes(1.0f);
    body(Pixels{u, residual(run.x, u, x.lanes[part]), residual(run.y, u, y.lanes[part]), kept}, part, is_last);
  }
}

// `padded`: whole groups can be read.
template <bool padded, typename In, typename Body>
void for_each_part(const Run& run, const In* x, const In* y, int32_t count, const Body& body) {
  static constexpr float numbers[group] = {0, 1, 2, 3, 4, 5, 6, 7};
  Group columns = load_group(numbers, group);
  for (Lanes& lanes : columns.lanes) {
    lanes = multiply_add(lanes, Lanes(run.stride), Lanes(run.first));
  }
  int32_t done = 0;
  for (; done + group <= count; done += group) {
    for_each_part(run, columns, load_group(x + done, group), load_group(y + done, group), group, std::false_type{},
                  body);
    for (Lanes& lanes : columns.lanes) {
      lanes = lanes + Lanes(static_cast<float>(group) * run.stride);
    }
  }
  if (done < count) {
    const int32_t left = count - done;
    const int32_t readable = padded ? group : left;
    for_each_part(run, columns, load_group(x + done, readable), load_group(y + done, readable), left, std::true_type{},
                  body);
  }
}

// What a row adds up; u is a coordinate, x and y are residuals.
enum RowSum { weight_sum, u_sum, uu_sum, x_sum, xu_sum, y_sum, yu_sum, squared_sum };
constexpr int32_t row_sums = 8;

// Adds up the eight lanes of each of eight groups: neighbours, neighbouring pairs, then the halves.
void add_lanes_up(const Group* groups, float* sums) {
#if defined(__AVX2__)
  const auto pairs = [&](int32_t first) {
    return _mm256_hadd_ps(groups[first].lanes[0].vector, groups[first + 1].lanes[0].vector);
  };
  const __m256 first = _mm256_hadd_ps(pairs(0), pairs(2));
  const __m256 second = _mm256_hadd_ps(pairs(4), pairs(6));
  _mm256_storeu_ps(
      sums, _mm256_add_ps(_mm256_permute2f128_ps(first, second, 0x20), _mm256_permute2f128_ps(first, second, 0x31)));
#else
  for (int32_t index = 0; index < row_sums; ++index) {
    float lanes[group];
    for (int32_t part = 0; part < parts; ++part) {
      store_lanes(groups[index].lanes[part], lanes + part * lane_count);
    }
    sums[index] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
#endif
}

// The sums of one row, in which v is the same everywhere.
class RowSums {
 public:
  RowSums() {
    for (Group& sums : groups_) {
      std::fill_n(sums.lanes, parts, Lanes(0.0f));
    }
  }

  template <bool padded, typename In>
  void add_run(const Run& run, const In* x, const In* y, int32_t count) {
    for_each_part<padded>(run, x, y, count, [&](const Pixels& pixels, int32_t part, auto is_last) {
      const PixelWeight<Lanes> pixel = pixel_weight(pixels.x, pixels.y, Lanes(run.scale));
      const Lanes weight = is_last ? pixel.weight * pixels.kept : pixel.weight;
      const Lanes weighted_u = weight * pixels.u;
      const auto sum = [&](RowSum index) -> Lanes& { return groups_[index].lanes[part]; };
      sum(weight_sum) = sum(weight_sum) + weight;
      sum(u_sum) = sum(u_sum) + weighted_u;
      sum(uu_sum) = multiply_add(weighted_u, pixels.u, sum(uu_sum));
      sum(x_sum) = multiply_add(weight, pixels.x, sum(x_sum));
      sum(xu_sum) = multiply_add(weighted_u, pixels.x, sum(xu_sum));
      sum(y_sum) = multiply_add(weight, pixels.y, sum(y_sum));
      sum(yu_sum) = multiply_add(weighted_u, pixels.y, sum(yu_sum));
      sum(squared_sum) = multiply_add(weight, pixel.squared, sum(squared_sum));
    });
  }

  void add_to(CameraSums& sums, float v) const {
    float row[row_sums];
    add_lanes_up(groups_, row);
    const auto across = static_cast<double>(v);
    const double weight = row[weight_sum];
    const double u = row[u_sum];
    const double x = row[x_sum];
    const double y = row[y_sum];
    merge(sums, {weight, u, across * weight, row[uu_sum], across * u, across * across * weight, x, row[xu_sum],
                 across * x, y, row[yu_sum], across * y, row[squared_sum]});
  }

 private:
  Group groups_[row_sums];
};

// One round over a field, or over the pixels of its grid.
class Round {
 public:
  Round(const twostream_sample& sample, const FieldCoding& coding, const CameraFit& fit, int32_t stride)
      : x_(residual_of(fit.x, coding.lo[0], coding.step[0])),
        y_(residual_of(fit.y, coding.lo[1], coding.step[1])),
        across_(axis_of(sample.width)),
        down_(axis_of(sample.height)),
        scale_(fit.scale),
        stride_(static_cast<float>(stride)) {}

  float v_of(int32_t row) const { return (static_cast<float>(row) - down_.centre) * down_.unit; }

  Run run_at(float v, int32_t column) const {
    return {at_row(x_, v), at_row(y_, v), scale_, static_cast<float>(column) - across_.centre, stride_, across_.unit};
  }

 private:
  const SlopedAffine x_;
  const SlopedAffine y_;
  const Axis across_;
  const Axis down_;
  const float scale_;
  const float stride_;
};

// The pixels of a field's grid, as raw values; zeros behind each row, so that whole groups can be read.
struct Samples {
  SampleGrid grid;
  int32_t row_length;
  float x[most_samples + group];  // a block's last group may reach behind the last row
  float y[most_samples + group];

  template <typename In>
  void read(const twostream_sample& sample, int64_t field) {
    grid = sample_grid(sample.height, sample.width);
    row_length = static_cast<int32_t>(padded_columns(grid.columns));
    for (int32_t row = 0; row < grid.rows; ++row) {
      float* to_x = x + row * row_length;
      float* to_y = y + row * row_length;
      const In* pixel = pixel_of<const In>(sample, field, grid.first_row + int64_t{row} * grid.step, grid.first_column);
      for (int32_t column = 0; column < grid.columns; ++column, pixel += grid.step * sample.column_stride) {
        to_x[column] = to_float(pixel[0]);
        to_y[column] = to_float(pixel[sample.component_stride]);
      }
      std::fill(to_x + grid.columns, to_x + row_length, 0.0f);
      std::fill(to_y + grid.columns, to_y + row_length, 0.0f);
    }
    std::fill_n(x + grid.rows * row_length, group, 0.0f);
    std::fill_n(y + grid.rows * row_length, group, 0.0f);
  }

  CameraSums sums(const Round& round, const Block& block) const {
    CameraSums total = no_pixels();
    for_each_run(round, block, 1,
                 [&](const Run& run, const float* values_x, const float* values_y, int32_t count, float v) {
                   RowSums sums;
                   sums.add_run<true>(run, values_x, values_y, count);
                   sums.add_to(total, v);
                 });
    return total;
  }

  double mean_penalty(const Round& round) const {
    double total = 0.0;
    for_each_run(round, whole_block(grid), judged_rows,
                 [&](const Run& run, const float* values_x, const float* values_y, int32_t count, float) {
                   Group groups[row_sums] = {};
                   for_each_part<true>(run, values_x, values_y, count, [&](const Pixels& pixels, int32_t part, auto) {
                     Lanes& sum = groups[0].lanes[part];
                     sum = multiply_add(pixel_penalty(pixels.x, pixels.y), pixels.kept, sum);
                   });
                   float sums[row_sums];
                   add_lanes_up(groups, sums);
                   total += static_cast<double>(sums[0]);
                 });
    return total / static_cast<double>(judged_pixels(grid));
  }

 private:
  // Calls body(run, x, y, count, v) for every `row_step`-th row of a block.
  template <typename Body>
  void for_each_run(const Round& round, const Block& block, int32_t row_step, const Body& body) const {
    for (int32_t row = block.first_row; row < block.last_row; row += row_step) {
      const float v = round.v_of(grid.first_row + row * grid.step);
      for (int32_t column = block.first_column; column < block.last_column; column += longest_run) {
        const int32_t place = row * row_length + column;
        body(round.run_at(v, grid.first_column + column * grid.step), x + place, y + place,
             std::min(longest_run, block.last_column - column), v);
      }
    }
  }
};

// The best plain fit, improved in that many rounds.
CameraFit fit_samples(const Samples& samples, const twostream_sample& sample, const FieldCoding& coding,
                      int32_t rounds) {
  const auto round_of = [&](const CameraFit& fit) { return Round(sample, coding, fit, samples.grid.step); };
  CameraStart start = no_start();
  for (int32_t number = 0; number < starts_of(samples.grid); ++number) {
    CameraFit fit = no_fit();
    refit(fit, samples.sums(round_of(fit), start_block(samples.grid, number)));
    offer(start, fit, samples.mean_penalty(round_of(fit)));
  }
  CameraFit fit = start.fit;
  for (int32_t round = 0; round < rounds; ++round) {
    refit(fit, samples.sums(round_of(fit), whole_block(samples.grid)));
  }
  return fit;
}

template <typename In>
CameraFit fit_on_grid(const twostream_sample& sample, int64_t field, const FieldCoding& coding, int32_t rounds) {
  Samples samples;
  samples.read<In>(sample, field);
  CameraFit fit = fit_samples(samples, sample, coding, rounds);
  widen(fit);
  return fit;
}

// Sums over the rows of one band.
template <typename In>
CameraSums sum_band(const twostream_sample& sample, int64_t field, const Round& round, int32_t band) {
  CameraSums total = no_pixels();
  const auto begin = static_cast<int32_t>(int64_t{sample.height} * band / bands);
  const auto end = static_cast<int32_t>(int64_t{sample.height} * (band + 1) / bands);
  TileRows<In, 2> tile;
  for (int32_t row = begin; row < end; ++row) {
    const float v = round.v_of(row);
    for (int32_t first = 0; first < sample.width; first += longest_run) {
      RowSums sums;
      const int32_t last = std::min(first + longest_run, sample.width);
      for (int32_t column = first; column < last; column += tile_pixels) {
        const int32_t count = std::min(tile_pixels, last - column);
        read_tile(pixel_of<const In>(sample, field, row, column), sample.column_stride, sample.component_stride, count,
                  tile);
        sums.add_run<false>(round.run_at(v, column), tile.rows[0], tile.rows[1], count);
      }
      sums.add_to(total, v);
    }
  }
  return total;
}

int64_t pixels_of(const twostream_batch& batch) {
  return batch.size > 0 ? int64_t{batch.samples[0].height} * batch.samples[0].width : 0;
}

template <typename In>
void fit_fields(const twostream_camera_motion_args& args, int64_t first, int64_t count) {
  CameraFit fits[fields_together];
  CameraSums sums[fields_together][bands];
  const bool coded = args.flow.dtype == TWOSTREAM_UINT8;
  const auto sample_of = [&](int64_t field) -> const twostream_sample& {
    return args.flow.samples[(first + field) / args.flow.length];
  };
  const auto coding_of = [&](int64_t field) {
    return field_coding(coded ? args.lo : nullptr, coded ? args.step : nullptr, first + field);
  };
  const int64_t pixels = pixels_of(args.flow);
  parallel_for(count, grain_for(std::min(pixels, most_samples) * args.iterations), [&](int64_t field) {
    fits[field] =
        fit_on_grid<In>(sample_of(field), (first + field) % args.flow.length, coding_of(field), args.iterations - 1);
  });
  parallel_for(count * bands, grain_for(pixels / bands), [&](int64_t item) {
    const int64_t field = item / bands;
    const auto band = static_cast<int32_t>(item % bands);
    const Round round(sample_of(field), coding_of(field), fits[field], 1);
    sums[field][band] = sum_band<In>(sample_of(field), (first + field) % args.flow.length, round, band);
  });
  for (int64_t field = 0; field < count; ++field) {
    CameraSums total = no_pixels();
    for (const CameraSums& band : sums[field]) {
      merge(total, band);
    }
    refit(fits[field], total);
    write_map(fits[field], sample_of(field).height, sample_of(field).width, args.output + 6 * (first + field));
  }
}

}  // namespace

int TWOSTREAM_CPU(camera_motion)(const twostream_camera_motion_args* args) {
  if (!valid(*args)) {
    return TWOSTREAM_INVALID_ARGUMENT;
  }
  const int64_t fields = args->flow.size * args->flow.length;
  with_any_type(args->flow.dtype, [&](auto in) {
    for (int64_t first = 0; first < fields; first += fields_together) {
      fit_fields<decltype(in)>(*args, first, std::min(fields_together, fields - first));
    }
  });
  return TWOSTREAM_SUCCESS;
}
