// SPDX-License-Identifier: Apache-2.0
//
// What the kernels over chunks share: the problem as they see it, the tile of
// a CTA and its shared memory, the loads of a chunk, its decays, and the
// update of the state, which lives in registers.
//
// A CTA takes kHeads neighbouring heads of one group over a run of chunks (a
// segment). Rows (head, p) of all its heads are one axis; each warp owns kRows
// of them, for all d_state columns of the state and all tokens of y^T, so that
// states never leave registers and B and C are read from shared memory once
// for kRows rows.
#pragma once

#include <type_traits>

#include "ops/mma.cuh"

namespace seqmark::ssd {

inline constexpr int kChunk = 64;  // tokens
inline constexpr float kLog2E = 1.4426950408889634f;
// 2^x is exactly zero in f32, subnormals flushed, for x below this.
inline constexpr float kVanished = -127.0f;

struct Strides {  // in elements
  int64_t batch = 0;
  int64_t token = 0;
};

template <class T>
struct Params {
  const T* x;
  const T* dt;
  const T* B;
  const T* C;
  const T* z;            // or null
  const float* A;        // (heads)
  const float* D;        // (heads), or null
  const float* dt_bias;  // (heads), or null
  float dt_min;
  const float* initial_state;  // (batch, heads, head_dim, d_state), or null
  T* y;
  float* final_state;  // (batch, heads, head_dim, d_state)
  // What each piece of the segments but the last adds to the state, and after
  // the passing kernel the state it starts from; of the last segment, only of
  // its first piece: (batch, state_count(), heads, head_dim, d_state), where
  // d_state is held_d_state and the last two as sm_90a holds them
  // (hopper_chunk.cuh) if that is not 0.
  float* states;
  int held_d_state;
  float* decays;  // of a whole piece: (batch, state_count(), heads)
  Strides x_strides, dt_strides, B_strides, C_strides, z_strides, y_strides;
  int batch, seqlen, heads, head_dim, groups, d_state;
  int segments, segment_chunks;
  // What segments add is made in pieces, of which the last may be shorter.
  int pieces, piece_chunks;

  __host__ __device__ int64_t state_size() const {  // of a head, in floats
    return static_cast<int64_t>(head_dim) *
           (held_d_state > 0 ? held_d_state : d_state);
  }
  __host__ __device__ int state_count() const {
    return (segments - 1) * pieces + 1;
  }
  // The chunks of a piece of all segments': [x, y).
  __device__ __forceinline__ int2 PieceChunks(int piece) const {
    const int segment = piece / pieces;
    const int first = segment * segment_chunks + piece % pieces * piece_chunks;
    return {first, min(first + piece_chunks, (segment + 1) * segment_chunks)};
  }
};

// What a gated tile's kernels have besides: there is a z, y is multiplied by
// weights after it, and the squares of what it is before are summed up over
// each kPartRows rows, a part (ops/mamba2_inner).
inline constexpr int kPartRows = 64;
template <class T>
struct GateParams {
  const T* weight;  // (heads * head_dim), or null: no weights, no squares
  float* squares;   // (batch, seqlen, heads * head_dim / kPartRows)
  Strides squares_strides;
};
template <class T>
struct GatedParams : Params<T> {
  GateParams<T> gate;
};
template <class Tile>
using ParamsOf =
    std::conditional_t<Tile::kGated, GatedParams<typename Tile::Element>,
                       Params<typename Tile::Element>>;
template <class Plain>
struct Gated : Plain {
  static constexpr bool kGated = true;
};

template <class T, int kHeadDim, int kStateSize>
struct Tile {
  using Element = T;
  static constexpr bool kGated = false;
  static constexpr int kP = kHeadDim;
  static constexpr int kN = kStateSize;  // d_state, padded with zeros
  // 128 registers of state a thread.
  static constexpr int kRows = kN == 256 ? 16 : 32;
  static constexpr int kWarps = kP * kN > 128 * 128 ? 8 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kHeads = kWarps * kRows / kP;
  static constexpr int kMTiles = kRows / 16;
  static constexpr int kNTiles = kN / 8;
  // B and x of the next chunk are copied behind this one's work, where two
  // stages fit the 99 KB that every architecture has.
  static constexpr int kStages = kN == 256 ? 1 : 2;
  static constexpr int kCtas = kWarps == 8 ? 1 : 2;  // meant to share an SM

  static constexpr int kInputRow = kN * 2;  // bytes: B, C
  static constexpr int kXRow = kP * 2;
  static constexpr int kInputBytes = kChunk * kInputRow;
  static constexpr int kXBytes = kChunk * kXRow;  // a head's
  static constexpr int kScoreRow = kChunk * 2;
  static constexpr int kScoreBytes = kChunk * kScoreRow;  // a head's
  static_assert(kInputRow % 128 == 0 && kXRow % 128 == 0);
  static_assert(kHeads >= 1 && kHeads <= kWarps);
};

// A chunk's decays for one head, as powers of two: a is the cumulative sum of
// step * A from the chunk's start, so exp2(a) decays the state before it, and
// after - a is the exponent from a token to where the state is wanted.
struct Decays {
  float a[kChunk];
  float step[kChunk];
  float after;
  float unused[3];
};

template <class Tile>
struct StateSharedMemory {
  alignas(512) uint8_t B[Tile::kStages][Tile::kInputBytes];
  alignas(512) uint8_t x[Tile::kStages][Tile::kHeads][Tile::kXBytes];
  Decays decays[2][Tile::kHeads];
};

// y of a token in eight neighbouring columns, gated where there is a z.
template <class T>
__device__ __forceinline__ void StoreEight(const Params<T>& p, int batch,
                                           int token, int64_t column,
                                           Pack<T, 8> values) {
  if (p.z != nullptr) {
    const auto z = *reinterpret_cast<const Pack<T, 8>*>(
        p.z + batch * p.z_strides.batch + token * p.z_strides.token + column);
#pragma unroll
    for (int k = 0; k < 8; ++k)
      values.v[k] =
          FromFloat<T>(ToFloat(values.v[k]) * SiluFast(ToFloat(z.v[k])));
  }
  *reinterpret_cast<Pack<T, 8>*>(p.y + batch * p.y_strides.batch +
                                 token * p.y_strides.token + column) = values;
}

// Which heads and segment a CTA works on.
struct BlockPlace {
  int batch, group, segment, first_head, heads;

  // A CTA has up to `most` heads of one group.
  template <class P>
  __device__ __forceinline__ BlockPlace(const P& p, int segments, int most) {
    const int heads_per_group = p.heads / p.groups;
    const int sets = (heads_per_group + most - 1) / most;
    int block = blockIdx.x;
    const int set = block % sets;
    block /= sets;
    group = block % p.groups;
    block /= p.groups;
    segment = block % segments;
    batch = block / segments;
    first_head = group * heads_per_group + set * most;
    heads = min(most, heads_per_group - set * most);
  }
};

// And which of its rows a thread's warp.
template <class Tile>
struct Place : BlockPlace {
  int lane, warp, slot, row;  // slot: the warp's head; row: its first p

  template <class P>
  __device__ __forceinline__ Place(const P& p, int segments)
      : BlockPlace(p, segments, Tile::kHeads) {
    lane = threadIdx.x % 32;
    warp = threadIdx.x / 32;
    slot = warp * Tile::kRows / Tile::kP;
    row = warp * Tile::kRows % Tile::kP;
  }
  __device__ __forceinline__ int head() const { return first_head + slot; }
  // The warp's head exists (the last CTA of a group may have fewer).
  __device__ __forceinline__ bool active() const { return slot < heads; }
};

// Copies `count` rows of kColumns 16-byte columns, all by the whole CTA; row r
// starts at from + r * stride. Rows from `count` on and columns that are not
// `valid` are zeros. `to(row, column)` is where a piece goes.
template <class Tile, int kColumns, class T, class To>
__device__ __forceinline__ void CopyRows(const T* from, int64_t stride,
                                         int count, bool valid, To&& to) {
  constexpr int kRowsAtOnce = Tile::kThreads / kColumns;
  const int thread = Opaque(threadIdx.x);
  const int row = thread / kColumns;
  const T* source = from + row * stride + thread % kColumns * 8;
#pragma unroll
  for (int i = 0; i < kChunk; i += kRowsAtOnce) {
    const bool exists = valid && row + i < count;
    CopyAsync16(to(row + i, thread % kColumns), exists ? source : from, exists);
    source += kRowsAtOnce * stride;
  }
}

// A chunk of B or C; zeros beyond the sequence and d_state.
template <class Tile, class T>
__device__ __forceinline__ void CopyInput(const Params<T>& p,
                                          const Place<Tile>& place,
                                          const T* from, const Strides& strides,
                                          int token, uint8_t* to) {
  constexpr int kColumns = Tile::kN / 8;
  const uint32_t tile = SharedAddress(to);
  CopyRows<Tile, kColumns>(
      from + place.batch * strides.batch + token * strides.token +
          static_cast<int64_t>(place.group) * p.d_state,
      strides.token, p.seqlen - token,
      static_cast<int>(threadIdx.x) % kColumns * 8 < p.d_state,
      [&](int row, int column) {
        return tile + Swizzled(row, column, Tile::kInputRow);
      });
}

// A chunk of x of all the CTA's heads, which are neighbours in memory.
template <class Tile, class T>
__device__ __forceinline__ void CopyX(const Params<T>& p,
                                      const Place<Tile>& place, int token,
                                      uint8_t (*to)[Tile::kXBytes]) {
  constexpr int kHeadColumns = Tile::kP / 8;
  constexpr int kColumns = Tile::kHeads * kHeadColumns;
  const uint32_t tiles = SharedAddress(to);
  CopyRows<Tile, kColumns>(
      p.x + place.batch * p.x_strides.batch + token * p.x_strides.token +
          static_cast<int64_t>(place.first_head) * Tile::kP,
      p.x_strides.token, p.seqlen - token,
      static_cast<int>(threadIdx.x) % kColumns / kHeadColumns < place.heads,
      [&](int row, int column) {
        return tiles + column / kHeadColumns * Tile::kXBytes +
               Swizzled(row, column % kHeadColumns, Tile::kXRow);
      });
}

// Raw steps of a chunk for the head `warp`, two tokens a lane, fetched early.
template <class Tile, class T>
struct RawSteps {
  T value[2];
  __device__ __forceinline__ void Fetch(const Params<T>& p,
                                        const Place<Tile>& place, int token) {
    if (place.warp >= place.heads) return;
    const T* const from =
        p.dt + place.batch * p.dt_strides.batch + place.first_head + place.warp;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int l = min(token + 2 * place.lane + i, p.seqlen - 1);
      value[i] = from[l * p.dt_strides.token];
    }
  }
};

// The steps of two tokens a lane, from `token` on, and their exponents summed
// up from there. Tokens past the end and heads that do not exist have step 0:
// they neither decay nor add.
template <class T>
__device__ __forceinline__ float2 SumSteps(const T (&raw)[2], float bias,
                                           float rate, float dt_min,
                                           bool exists, int token, int seqlen,
                                           int lane, float (&step)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i)
    step[i] = exists && token + 2 * lane + i < seqlen
                  ? fmaxf(SoftplusFast(ToFloat(raw[i]) + bias), dt_min)
                  : 0.0f;
  // A decay that is zero anyway is taken for the largest of these: sums stay
  // small, whose roundings are the errors of all decays of the chunk.
  constexpr float kLeast = kVanished - 1;
  const auto exponent = [rate](float step) {  // what is not a number stays so
    return step * rate < kLeast ? kLeast : step * rate;
  };
  const float first = exponent(step[0]);
  float sum = first + exponent(step[1]);  // inclusive, over lanes
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const float before = __shfl_up_sync(~0u, sum, offset);
    if (lane >= offset) sum += before;
  }
  const float before = __shfl_up_sync(~0u, sum, 1);
  return {(lane > 0 ? before : 0.0f) + first, sum};
}

// Warp w < heads fills the decays of head w. `suffix` is the exponent by which
// what this chunk adds decays later on; heads that do not exist have vanished.
template <class Tile, class T>
__device__ __forceinline__ void FillDecays(const Params<T>& p,
                                           const Place<Tile>& place,
                                           const RawSteps<Tile, T>& raw,
                                           int token, float suffix,
                                           Decays* decays) {
  if (place.warp >= Tile::kHeads) return;
  Decays& out = decays[place.warp];
  const int lane = place.lane;
  const bool exists = place.warp < place.heads;
  const int head = exists ? place.first_head + place.warp : place.first_head;
  const float bias = p.dt_bias != nullptr ? p.dt_bias[head] : 0.0f;
  const float rate = p.A[head] * kLog2E;
  float step[2];
  const float2 a = SumSteps(raw.value, bias, rate, p.dt_min, exists, token,
                            p.seqlen, lane, step);
  *reinterpret_cast<float2*>(&out.a[2 * lane]) = a;
  *reinterpret_cast<float2*>(&out.step[2 * lane]) = {step[0], step[1]};
  if (lane == 31) out.after = exists ? a.y + suffix : 2 * kVanished;
}

template <class Tile>
using StateRegisters = float[Tile::kMTiles][Tile::kNTiles][4];
// x^T of 16 tokens, the warp's rows, as A fragments.
template <class Tile>
using XRegisters = uint32_t[Tile::kMTiles][4];

// Where a warp's fragments of a chunk are: x^T and B.
template <class Tile>
struct StateOperands {
  int t;          // lane % 4
  uint32_t x, B;  // shared-memory addresses
  __device__ __forceinline__ StateOperands(const Place<Tile>& place,
                                           const uint8_t* x_tile,
                                           const uint8_t* b_tile) {
    const int lane = Opaque(place.lane);
    t = lane % 4;
    x = Across(SharedAddress(x_tile), lane, place.row / 8, Tile::kXRow);
    B = Down(SharedAddress(b_tile), lane, 0, Tile::kInputRow);
  }
  // Tokens 16j..16j+15.
  __device__ __forceinline__ void LoadX(int j, XRegisters<Tile>& out) const {
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m)
      LoadMatricesTransposed(out[m], Shifted(x, 16 * j, 2 * m, Tile::kXRow));
  }
};

// state += (x * step * exp2(after - a))^T B over tokens 16j..16j+15
template <class Tile>
__device__ __forceinline__ void UpdateState(const StateOperands<Tile>& from,
                                            const Decays& decays, int j,
                                            const XRegisters<Tile>& x,
                                            StateRegisters<Tile>& state) {
  using T = typename Tile::Element;
  uint32_t scaled[Tile::kMTiles][4];
#pragma unroll
  for (int right = 0; right < 2; ++right) {
    const int token = 16 * j + 8 * right + 2 * from.t;
    const float2 a = *reinterpret_cast<const float2*>(&decays.a[token]);
    const float2 step = *reinterpret_cast<const float2*>(&decays.step[token]);
    const float2 weight = {step.x * Exp2Fast(decays.after - a.x),
                           step.y * Exp2Fast(decays.after - a.y)};
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m)
#pragma unroll
      for (int r = 2 * right; r < 2 * right + 2; ++r) {
        const float2 v = UnpackPair<T>(x[m][r]);
        scaled[m][r] = PackPair<T>(v.x * weight.x, v.y * weight.y);
      }
  }
#pragma unroll
  for (int n = 0; n < Tile::kN / 16; ++n) {
    uint32_t b[4];
    LoadMatricesTransposed(b, Shifted(from.B, 16 * j, 2 * n, Tile::kInputRow));
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
      Mma<T>(state[m][2 * n], scaled[m], b[0], b[1]);
      Mma<T>(state[m][2 * n + 1], scaled[m], b[2], b[3]);
    }
  }
}

// visit(value, offset) for each pair of neighbours of the state that exists;
// offset within a (head_dim, d_state) matrix.
template <class Tile, class Visit>
__device__ __forceinline__ void ForEachStatePair(const Place<Tile>& place,
                                                 int d_state,
                                                 StateRegisters<Tile>& state,
                                                 Visit&& visit) {
  const int g = place.lane / 4, t = place.lane % 4;
#pragma unroll
  for (int m = 0; m < Tile::kMTiles; ++m)
#pragma unroll
    for (int n = 0; n < Tile::kNTiles; ++n) {
      if (8 * n >= d_state) continue;
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int row = place.row + 16 * m + 8 * below + g;
        visit(state[m][n][2 * below], state[m][n][2 * below + 1],
              static_cast<int64_t>(row) * d_state + 8 * n + 2 * t);
      }
    }
}

}  // namespace seqmark::ssd
