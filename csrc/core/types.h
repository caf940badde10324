// SPDX-License-Identifier: BSD-3-Clause
// 16-bit floats as plain data, converted with round-to-nearest-even and the same bits on host and device. A GPU
// converts float16 by itself, in one instruction where the formulas take ten, and with their bits but for a NaN's.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.h"
#include "twostream/common.h"

namespace twostream {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

TWOSTREAM_HD uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

TWOSTREAM_HD float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

TWOSTREAM_HD float to_float(uint8_t value) { return static_cast<float>(value); }
TWOSTREAM_HD float to_float(float value) { return value; }
TWOSTREAM_HD float to_float(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

TWOSTREAM_HD float to_float(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
#if defined(__CUDA_ARCH__)
  float converted;
  asm("cvt.f32.f16 %0, %1;" : "=f"(converted) : "h"(value.bits));
  return magnitude > 0x7c00u ? float_of(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13)) : converted;
#else
  if (magnitude >= 0x7c00u) {  // infinity and NaN keep their payload
    return float_of(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  if (magnitude < 0x0400u) {  // zero and subnormals: magnitude * 2^-24 is exact in float
    return float_of(sign | bits_of(static_cast<float>(magnitude) * 5.9604644775390625e-8f));
  }
  return float_of(sign | ((magnitude + 0x1c000u) << 13));  // rebias the exponent from 15 to 127
#endif
}

template <typename T>
TWOSTREAM_HD T from_float(float value);

template <>
TWOSTREAM_HD float from_float<float>(float value) {
  return value;
}

template <>
TWOSTREAM_HD BFloat16 from_float<BFloat16>(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return {static_cast<uint16_t>(0x7fc0u)};
  }
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <>
TWOSTREAM_HD Float16 from_float<Float16>(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
#if defined(__CUDA_ARCH__)
  uint16_t converted;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(converted) : "f"(value));
  return {magnitude > 0x7f800000u ? static_cast<uint16_t>(sign | 0x7e00u) : converted};
#else
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 aligns the subnormal's last bit with the float's
    half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
#endif
}

// Calls `body` with a value of the C++ type that `dtype` names; false if it names none of them.
template <typename Body>
bool with_float_type(twostream_dtype dtype, Body&& body) {
  switch (dtype) {
    case TWOSTREAM_FLOAT16:
      body(Float16{});
      return true;
    case TWOSTREAM_BFLOAT16:
      body(BFloat16{});
      return true;
    case TWOSTREAM_FLOAT32:
      body(float{});
      return true;
    default:
      return false;
  }
}

template <typename Body>
bool with_any_type(twostream_dtype dtype, Body&& body) {
  if (dtype == TWOSTREAM_UINT8) {
    body(uint8_t{});
    return true;
  }
  return with_float_type(dtype, body);
}

}  // namespace twostream
