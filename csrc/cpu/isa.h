// SPDX-License-Identifier: BSD-3-Clause
// The operators with loops over pixels are compiled once for each instruction set (CMakeLists.txt); dispatch.cpp
// chooses at run time, so that a wheel built on one x86-64 runs on all. The build for AVX2 also renames the namespace
// `twostream`: inline functions of the two builds must not bear one name, or the linker would keep either, and an old
// processor would meet instructions that it does not have.
#pragma once

#if defined(TWOSTREAM_AVX2)
#define TWOSTREAM_CPU(name) twostream_##name##_cpu_avx2
#else
#define TWOSTREAM_CPU(name) twostream_##name##_cpu_baseline
#endif
