// SPDX-License-Identifier: Apache-2.0
//
// The last kernel: outputs of a segment, chunk by chunk, from the state it
// starts from. With row i and column j tokens of the chunk,
//
//   scores[i][j] = (C_i . B_j) exp2(a_i - a_j) step_j   for j <= i
//   y^T = exp2(a_i) state C^T + x^T scores^T
//   state = exp2(a_last) state + (x step exp2(a_last - a))^T B
//
// y is computed transposed because then the state in its accumulators, rounded,
// is the left operand of the first product, and x^T that of the other two. Two
// barriers a chunk: one when its copies are there, one between the scores and
// their use, after which C's place is free for the next chunk's.
#pragma once

#include "ops/ssd_scan/chunk.cuh"

namespace seqmark::ssd {

template <class Tile>
struct ScanSharedMemory : StateSharedMemory<Tile> {
  alignas(512) uint8_t C[Tile::kInputBytes];
  alignas(512) uint8_t scores[Tile::kHeads][Tile::kScoreBytes];
};

// Every head's scores, as T. C B^T is shared by the heads; its ten 16 x 16
// blocks on and below the diagonal are dealt to the warps.
template <class Tile>
__device__ __forceinline__ void FillScores(const Place<Tile>& place,
                                           const Decays* decays,
                                           const uint8_t* B,
                                           ScanSharedMemory<Tile>& shared) {
  using T = typename Tile::Element;
  constexpr int kBlocks = 10;
  constexpr int kDealt = (kBlocks + Tile::kWarps - 1) / Tile::kWarps;
  const int lane = Opaque(place.lane);
  const uint32_t b_rows = Across(SharedAddress(B), lane, 0, Tile::kInputRow);
  const uint32_t c_rows =
      Down(SharedAddress(shared.C), lane, 0, Tile::kInputRow);
  int row[kDealt], column[kDealt];  // of the blocks
#pragma unroll
  for (int d = 0; d < kDealt; ++d) {
    const int block = place.warp + d * Tile::kWarps;
    row[d] = (block >= 1) + (block >= 3) + (block >= 6);
    column[d] = block - row[d] * (row[d] + 1) / 2;
  }
  const auto dealt = [&](int d) {
    return place.warp + d * Tile::kWarps < kBlocks;
  };
  float cb[kDealt][2][4] = {};
#pragma unroll
  for (int k = 0; k < Tile::kN / 16; ++k)
#pragma unroll
    for (int d = 0; d < kDealt; ++d)
      if (dealt(d)) {
        uint32_t a[4], b[4];
        LoadMatrices(a, Shifted(c_rows, 16 * row[d], 2 * k, Tile::kInputRow));
        LoadMatrices(b,
                     Shifted(b_rows, 16 * column[d], 2 * k, Tile::kInputRow));
        Mma<T>(cb[d][0], a, b[0], b[1]);
        Mma<T>(cb[d][1], a, b[2], b[3]);
      }
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int h = 0; h < Tile::kHeads; ++h)
#pragma unroll
    for (int d = 0; d < kDealt; ++d)
      if (dealt(d))
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int j = 16 * column[d] + 8 * n + 2 * t;
          const float2 a_j = *reinterpret_cast<const float2*>(&decays[h].a[j]);
          const float2 step =
              *reinterpret_cast<const float2*>(&decays[h].step[j]);
#pragma unroll
          for (int below = 0; below < 2; ++below) {
            const int i = 16 * row[d] + 8 * below + g;
            const float a_i = decays[h].a[i];
            const float* const v = &cb[d][n][2 * below];
            const float v0 =
                j <= i ? v[0] * step.x * Exp2Fast(a_i - a_j.x) : 0.0f;
            const float v1 =
                j + 1 <= i ? v[1] * step.y * Exp2Fast(a_i - a_j.y) : 0.0f;
            *reinterpret_cast<uint32_t*>(
                shared.scores[h] +
                Swizzled(i, 2 * column[d] + n, Tile::kScoreRow) + 4 * t) =
                PackPair<T>(v0, v1);
          }
        }
}

// y^T of a chunk, the warp's rows: tiles of 8 tokens.
template <class Tile>
using OutputRegisters = float[Tile::kMTiles][kChunk / 8][4];

// y = exp2(a_i) state C^T
template <class Tile>
__device__ __forceinline__ void ReadState(const Place<Tile>& place,
                                          const Decays& decays,
                                          const StateRegisters<Tile>& state,
                                          const uint8_t* C,
                                          OutputRegisters<Tile>& y) {
  using T = typename Tile::Element;
  const int lane = Opaque(place.lane), t = lane % 4;
  const uint32_t c_rows = Across(SharedAddress(C), lane, 0, Tile::kInputRow);
#pragma unroll
  for (int k = 0; k < Tile::kN / 16; ++k) {
    uint32_t a[Tile::kMTiles][4];
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float(&s)[4] = state[m][2 * k + r / 2];
        a[m][r] = PackPair<T>(s[2 * (r % 2)], s[2 * (r % 2) + 1]);
      }
#pragma unroll
    for (int i = 0; i < kChunk / 16; ++i) {
      uint32_t b[4];
      LoadMatrices(b, Shifted(c_rows, 16 * i, 2 * k, Tile::kInputRow));
#pragma unroll
      for (int m = 0; m < Tile::kMTiles; ++m) {
        Mma<T>(y[m][2 * i], a[m], b[0], b[1]);
        Mma<T>(y[m][2 * i + 1], a[m], b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kChunk / 8; ++n) {
    const float2 a = *reinterpret_cast<const float2*>(&decays.a[8 * n + 2 * t]);
    const float2 factor = {Exp2Fast(a.x), Exp2Fast(a.y)};
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
      y[m][n][0] *= factor.x;
      y[m][n][1] *= factor.y;
      y[m][n][2] *= factor.x;
      y[m][n][3] *= factor.y;
    }
  }
}

// What tokens 16j..16j+15 add to y of themselves and later ones, with the skip.
template <class Tile>
__device__ __forceinline__ void AddTokens(int j, float skip,
                                          const XRegisters<Tile>& x,
                                          uint32_t score_rows,
                                          OutputRegisters<Tile>& y) {
  using T = typename Tile::Element;
#pragma unroll
  for (int i = j; i < kChunk / 16; ++i) {
    uint32_t b[4];
    LoadMatrices(b, Shifted(score_rows, 16 * i, 2 * j, Tile::kScoreRow));
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
      Mma<T>(y[m][2 * i], x[m], b[0], b[1]);
      Mma<T>(y[m][2 * i + 1], x[m], b[2], b[3]);
    }
  }
#pragma unroll
  for (int m = 0; m < Tile::kMTiles; ++m)
#pragma unroll
    for (int r = 0; r < 4; ++r) {  // right tile of tokens: r / 2
      const float2 v = UnpackPair<T>(x[m][r]);
      float(&out)[4] = y[m][2 * j + r / 2];
      out[2 * (r % 2)] += skip * v.x;
      out[2 * (r % 2) + 1] += skip * v.y;
    }
}

// Rounds tokens 16j..16j+15 of y^T and puts them, transposed, in the place of
// the x they were made of: columns that only this warp reads.
template <class Tile>
__device__ __forceinline__ void StageOutputs(const Place<Tile>& place, int j,
                                             const OutputRegisters<Tile>& y,
                                             uint8_t* x) {
  using T = typename Tile::Element;
  const int lane = Opaque(place.lane), g = lane / 4, t = lane % 4;
#pragma unroll
  for (int m = 0; m < Tile::kMTiles; ++m)
#pragma unroll
    for (int n = 2 * j; n < 2 * j + 2; ++n)
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const uint32_t pair = TransposeMatrix(
            PackPair<T>(y[m][n][2 * below], y[m][n][2 * below + 1]));
        const int column = place.row / 8 + 2 * m + below;
        *reinterpret_cast<uint32_t*>(
            x + Swizzled(8 * n + g, column, Tile::kXRow) + 4 * t) = pair;
      }
}

// How a warp goes through its rows of the staged y: 16 bytes of a token a lane,
// several tokens a turn.
template <class Tile>
struct OutputTurns {
  static constexpr int kPieces = Tile::kRows / 8;  // of 16 bytes, of a token
  static constexpr int kTokens = 32 / kPieces;     // of a turn
  int piece, in_turn;
  int64_t column;  // of y

  __device__ __forceinline__ explicit OutputTurns(const Place<Tile>& place) {
    const int lane = Opaque(place.lane);
    piece = lane % kPieces;
    // Tokens that share a quarter of the warp are 4 apart: no bank conflicts.
    const int order = lane / kPieces;
    in_turn = kTokens == 8 ? (order & 1) * 4 + order / 2 : order;
    column =
        static_cast<int64_t>(place.head()) * Tile::kP + place.row + piece * 8;
  }
};

// The warp's rows of y from shared memory to y, gated on the way.
template <class Tile, class T>
__device__ __forceinline__ void StoreOutputs(const Params<T>& p,
                                             const Place<Tile>& place,
                                             int token, const uint8_t* staged) {
  const OutputTurns<Tile> at(place);
#pragma unroll
  for (int turn = 0; turn < kChunk / at.kTokens; ++turn) {
    const int i = turn * at.kTokens + at.in_turn;
    if (token + i >= p.seqlen) continue;
    StoreEight(
        p, place.batch, token + i, at.column,
        *reinterpret_cast<const Pack<T, 8>*>(
            staged + Swizzled(i, place.row / 8 + at.piece, Tile::kXRow)));
  }
}

// Where a gated tile's warp leaves the squares of a token in its rows: above
// the diagonal of its head's scores, in columns 32 to 63 of rows 0 to 31, which
// nothing else uses. No other shared memory is left.
__device__ __forceinline__ float& SquareOf(uint8_t* scores, int warp_of_head,
                                           int token, int score_row) {
  return reinterpret_cast<float*>(
      scores + Swizzled(4 * warp_of_head + token / 16, 4 + token % 16 / 4,
                        score_row))[token % 4];
}

// The same of a gated tile: several z are fetched before any is used, and
// the squares of a token's columns go to its head's `scores` (SquareOf).
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void StoreGatedOutputs(const GatedParams<T>& p,
                                                  const Place<Tile>& place,
                                                  int token,
                                                  const uint8_t* staged,
                                                  uint8_t* scores) {
  const OutputTurns<Tile> at(place);
  constexpr int kPieces = at.kPieces, kTokens = at.kTokens;
  constexpr int kTurns = kChunk / kTokens;
  const int piece = at.piece, in_turn = at.in_turn;
  const int64_t column = at.column;
  using Eight = Pack<T, 8>;
  const T* const z_row = p.z + place.batch * p.z_strides.batch + column;
  T* const y_row = p.y + place.batch * p.y_strides.batch + column;
  Eight weight = {};
  if (p.gate.weight != nullptr)
    weight = *reinterpret_cast<const Eight*>(p.gate.weight + column);
  constexpr int kBatch = 4;  // loads under way together
#pragma unroll 1
  for (int first = 0; first < kTurns; first += kBatch) {
    Eight z[kBatch];
#pragma unroll
    for (int turn = 0; turn < kBatch; ++turn) {
      const int l =
          min(token + (first + turn) * kTokens + in_turn, p.seqlen - 1);
      z[turn] = *reinterpret_cast<const Eight*>(z_row + l * p.z_strides.token);
    }
#pragma unroll
    for (int turn = 0; turn < kBatch; ++turn) {
      const int i = (first + turn) * kTokens + in_turn;
      auto values = *reinterpret_cast<const Eight*>(
          staged + Swizzled(i, place.row / 8 + piece, Tile::kXRow));
      float sum = 0;
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        float v = ToFloat(values.v[k]) * SiluFast(ToFloat(z[turn].v[k]));
        sum = fmaf(v, v, sum);
        if (p.gate.weight != nullptr) v *= ToFloat(weight.v[k]);
        values.v[k] = FromFloat<T>(v);
      }
      if (token + i < p.seqlen)
        *reinterpret_cast<Eight*>(y_row + (token + i) * p.y_strides.token) =
            values;
#pragma unroll
      for (int offset = 1; offset < kPieces; offset *= 2)
        sum += __shfl_xor_sync(~0u, sum, offset);
      if (piece == 0)
        SquareOf(scores, place.row / Tile::kRows, i, Tile::kScoreRow) = sum;
    }
  }
}

// The squares of a chunk that all warps have in shared memory, added up over
// the warps of each part.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void StoreSquares(const GatedParams<T>& p,
                                             const Place<Tile>& place,
                                             int token,
                                             ScanSharedMemory<Tile>& shared) {
  constexpr int kPartWarps = kPartRows / Tile::kRows;
  constexpr int kHeadParts = Tile::kP / kPartRows;
  if (p.gate.weight == nullptr) return;
  for (int k = threadIdx.x; k < Tile::kHeads * kHeadParts * kChunk;
       k += Tile::kThreads) {
    const int part = k / kChunk, i = k % kChunk;
    if (part / kHeadParts >= place.heads || token + i >= p.seqlen) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kPartWarps; ++w)
      sum += SquareOf(shared.scores[part / kHeadParts],
                      part % kHeadParts * kPartWarps + w, i, Tile::kScoreRow);
    p.gate.squares[place.batch * p.gate.squares_strides.batch +
                   (token + i) * p.gate.squares_strides.token +
                   place.first_head * kHeadParts + part] = sum;
  }
}

template <class Tile, class T = typename Tile::Element>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kCtas)
    SegmentScan(const ParamsOf<Tile> p) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<ScanSharedMemory<Tile>*>(shared_bytes);
  const Place<Tile> place(p, p.segments);
  const int chunks = (p.seqlen + kChunk - 1) / kChunk;
  const int first = place.segment * p.segment_chunks;
  const int end = min(first + p.segment_chunks, chunks);

  const auto copy_c = [&](int c) {
    CopyInput<Tile>(p, place, p.C, p.C_strides, c * kChunk, shared.C);
    CommitCopies();
  };
  const auto copy = [&](int c, int stage) {
    CopyInput<Tile>(p, place, p.B, p.B_strides, c * kChunk, shared.B[stage]);
    CopyX<Tile>(p, place, c * kChunk, shared.x[stage]);
    CommitCopies();
  };
  copy_c(first);
  copy(first, 0);
  RawSteps<Tile, T> raw;
  raw.Fetch(p, place, first * kChunk);

  const int64_t state_size = static_cast<int64_t>(Tile::kP) * p.d_state;
  StateRegisters<Tile> state = {};
  if (place.active()) {
    const float* from = nullptr;
    if (p.segments > 1)
      from = p.states + ((static_cast<int64_t>(place.batch) * p.state_count() +
                          place.segment * p.pieces) *
                             p.heads +
                         place.head()) *
                            state_size;
    else if (p.initial_state != nullptr)
      from = p.initial_state +
             (static_cast<int64_t>(place.batch) * p.heads + place.head()) *
                 state_size;
    if (from != nullptr)
      ForEachStatePair(
          place, p.d_state, state, [&](float& v0, float& v1, int64_t offset) {
            const float2 v = *reinterpret_cast<const float2*>(from + offset);
            v0 = v.x;
            v1 = v.y;
          });
  }
  const float skip =
      p.D != nullptr && place.active() ? p.D[place.head()] : 0.0f;
  FillDecays(p, place, raw, first * kChunk, 0.0f, shared.decays[0]);

  for (int chunk = first; chunk < end; ++chunk) {
    const int turn = chunk - first;
    const int stage = turn % Tile::kStages;
    const Decays* const decays = shared.decays[turn % 2];
    const bool more = chunk + 1 < end;
    WaitCopies<0>();
    __syncthreads();
    if constexpr (Tile::kGated)
      if (turn > 0) StoreSquares(p, place, (chunk - 1) * kChunk, shared);
    if (more) {
      if (Tile::kStages == 2) copy(chunk + 1, (turn + 1) % 2);
      raw.Fetch(p, place, (chunk + 1) * kChunk);
    }
    FillScores(place, decays, shared.B[stage], shared);
    const Decays& own = decays[place.slot];
    OutputRegisters<Tile> y = {};
    ReadState(place, own, state, shared.C, y);
    const float decay = Exp2Fast(own.after);
#pragma unroll
    for (auto& tiles : state)
#pragma unroll
      for (auto& tile : tiles)
#pragma unroll
        for (float& v : tile) v *= decay;
    __syncthreads();  // scores are there, C is free
    if (more) copy_c(chunk + 1);
    uint8_t* const x_tile = shared.x[stage][place.slot];
    const StateOperands<Tile> operands(place, x_tile, shared.B[stage]);
    const uint32_t score_rows = Across(SharedAddress(shared.scores[place.slot]),
                                       Opaque(place.lane), 0, Tile::kScoreRow);
#pragma unroll
    for (int j = 0; j < kChunk / 16; ++j) {
      XRegisters<Tile> x;
      operands.LoadX(j, x);
      AddTokens<Tile>(j, skip, x, score_rows, y);
      UpdateState(operands, own, j, x, state);
      __syncwarp();  // every lane has its x
      StageOutputs(place, j, y, x_tile);
    }
    __syncwarp();
    if (place.active()) {
      if constexpr (Tile::kGated)
        StoreGatedOutputs(p, place, chunk * kChunk, x_tile,
                          shared.scores[place.slot]);
      else
        StoreOutputs(p, place, chunk * kChunk, x_tile);
    }
    if (!more) break;
    FillDecays(p, place, raw, (chunk + 1) * kChunk, 0.0f,
               shared.decays[(turn + 1) % 2]);
    if (Tile::kStages == 1) {
      __syncthreads();  // B and x are free
      copy(chunk + 1, 0);
    }
  }

  if constexpr (Tile::kGated) {
    __syncthreads();
    StoreSquares(p, place, (end - 1) * kChunk, shared);
  }
  if (place.active() && end == chunks) {
    float* const out =
        p.final_state +
        (static_cast<int64_t>(place.batch) * p.heads + place.head()) *
            state_size;
    ForEachStatePair(place, p.d_state, state,
                     [&](float v0, float v1, int64_t offset) {
                       *reinterpret_cast<float2*>(out + offset) = {v0, v1};
                     });
  }
}

}  // namespace seqmark::ssd
