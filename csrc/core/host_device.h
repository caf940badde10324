// SPDX-License-Identifier: BSD-3-Clause
// Marks the functions that are compiled for the host and for the device: the one arithmetic of both backends.
#pragma once

#if defined(__CUDACC__)
#define TWOSTREAM_HD __host__ __device__ __forceinline__
#elif defined(TWOSTREAM_RACE_CHECK)
// g++ puts no check before a store that a call makes of its result, and the linker may keep the copy of a function that
// an unchecked source brought: in checked kernels everything is inlined.
#define TWOSTREAM_HD inline __attribute__((always_inline))
#else
#define TWOSTREAM_HD inline
#endif
