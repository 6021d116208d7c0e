// SPDX-License-Identifier: Apache-2.0
//
// Exponentials that both kernels of the selective scan use.
#pragma once

#include "fixtures/cuda.h"

namespace seqmark::selective_scan {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.69314718055994531f;

// 2^x on the FMA pipe, within 2e-7 relative: the integer nearest to x falls out
// of adding 1.5 * 2^23, the fraction takes a minimax polynomial, 1 at 0.
__device__ __forceinline__ float Exp2Polynomial(float x) {
  constexpr float kMagic = 12582912.0f;
  x = fmaxf(x, -126.0f);
  const float shifted = x + kMagic;
  const float f = x - (shifted - kMagic);
  float p = 1.3264727e-3f;
  p = fmaf(p, f, 9.6715130e-3f);
  p = fmaf(p, f, 5.5507336e-2f);
  p = fmaf(p, f, 2.4022242e-1f);
  p = fmaf(p, f, 6.9314700e-1f);
  p = fmaf(p, f, 1.0f);
  return __int_as_float(__float_as_int(p) + (__float_as_int(shifted) << 23));
}

__device__ __forceinline__ float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2(1 + e) / e within 1e-7 for e in 0..1: a minimax polynomial.
__device__ __forceinline__ float Log2p1OverE(float e) {
  float p = 0.0077397944405674934f;
  p = fmaf(p, e, -0.04337572678923607f);
  p = fmaf(p, e, 0.11426792293787003f);
  p = fmaf(p, e, -0.19842536747455597f);
  p = fmaf(p, e, 0.27632880210876465f);
  p = fmaf(p, e, -0.3586130738258362f);
  p = fmaf(p, e, 0.48072507977485657f);
  p = fmaf(p, e, -0.7213424444198608f);
  return fmaf(p, e, 1.4426950216293335f);
}

}  // namespace seqmark::selective_scan
