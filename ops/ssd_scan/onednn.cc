// SPDX-License-Identifier: Apache-2.0
//
// The scan on the CPU in its chunked form. Threads take (batch, block of
// heads) and walk its chunks in order, with four products of matrices a chunk,
// for all heads of the block at once so that each is large:
//
//   C B^T                  (tokens x d_state) (d_state x tokens)
//   y_state = C state      (tokens x d_state) (d_state x block)
//   y_token = scores x     per head (tokens x tokens) (tokens x head_dim)
//   added = B^T x_scaled   (d_state x tokens) (tokens x block)
//
// oneDNN does them on matrix units where there are any (AMX for bf16); called
// inside a parallel region each runs in its own thread. What limits it is the
// work around the products (chunk_cpu.cc), which is why chunks are short: it
// grows with the chunk's length, as scores do, and with its inverse, as states
// do. f16, and bf16 without units for it, are computed in f32.
#include <omp.h>

#include <dnnl.hpp>
#include <unordered_map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/ssd_scan/chunk_cpu.h"
#include "ops/ssd_scan/ssd_scan.h"

namespace seqmark {
namespace {

using ssd::ChunkPlace;
using Desc = dnnl::memory::desc;
using Type = dnnl::memory::data_type;

constexpr int64_t kMostHeads = 8;  // of a block: its state stays in L2

// dst = src weights, with its own scratchpad so that threads can share it.
struct Product {
  Desc src, weights, dst;
  dnnl::matmul::primitive_desc desc;

  Product(const dnnl::engine& engine, Desc src_in, Desc weights_in, Desc dst_in)
      : src(src_in), weights(weights_in), dst(dst_in) {
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
    desc = dnnl::matmul::primitive_desc(engine, src, weights, dst, attr);
#else
    desc = dnnl::matmul::primitive_desc(dnnl::matmul::desc(src, weights, dst),
                                        attr, engine);
#endif
  }
};

// The products of a chunk of `tokens` tokens.
struct Products {
  int64_t tokens;
  Product cb, y_state, y_token, added;
  dnnl::matmul run_cb, run_y_state, run_y_token, run_added;

  size_t scratchpad_bytes() const {
    size_t bytes = 0;
    for (const Product* p : {&cb, &y_state, &y_token, &added})
      bytes = std::max(bytes, p->desc.scratchpad_desc().get_size());
    return bytes;
  }
};

struct Shape {
  Type type;      // of matrix operands
  int64_t heads;  // of a block
  int64_t head_dim, d_state;
  int64_t B_stride, C_stride;  // between tokens, of the operands
  int64_t width() const { return heads * head_dim; }
};

Products MakeProducts(const dnnl::engine& engine, const Shape& s, int64_t q) {
  const auto matrix = [](Type type, int64_t rows, int64_t columns,
                         int64_t row_stride, int64_t column_stride = 1) {
    return Desc({rows, columns}, type, {row_stride, column_stride});
  };
  constexpr Type kF32 = Type::f32;
  const int64_t w = s.width();
  Product cb(engine, matrix(s.type, q, s.d_state, s.C_stride),
             matrix(s.type, s.d_state, q, 1, s.B_stride),
             matrix(kF32, q, q, q));
  Product y_state(engine, matrix(s.type, q, s.d_state, s.C_stride),
                  matrix(s.type, s.d_state, w, w), matrix(kF32, q, w, w));
  Product y_token(
      engine, Desc({s.heads, q, q}, s.type, {q * q, q, 1}),
      Desc({s.heads, q, s.head_dim}, s.type, {q * s.head_dim, s.head_dim, 1}),
      Desc({s.heads, q, s.head_dim}, kF32, {q * s.head_dim, s.head_dim, 1}));
  Product added(engine, matrix(s.type, s.d_state, q, q),
                matrix(s.type, q, w, w), matrix(kF32, s.d_state, w, w));
  return {q,
          cb,
          y_state,
          y_token,
          added,
          dnnl::matmul(cb.desc),
          dnnl::matmul(y_state.desc),
          dnnl::matmul(y_token.desc),
          dnnl::matmul(added.desc)};
}

// A thread's place to run products: memory objects are made once a call site
// and only pointed elsewhere.
class Runner {
 public:
  Runner(const dnnl::engine& engine, const Product& p,
         const dnnl::matmul& primitive, void* scratchpad)
      : primitive_(primitive),
        src_(p.src, engine, nullptr),
        weights_(p.weights, engine, nullptr),
        dst_(p.dst, engine, nullptr),
        arguments_{{DNNL_ARG_SRC, src_},
                   {DNNL_ARG_WEIGHTS, weights_},
                   {DNNL_ARG_DST, dst_},
                   {DNNL_ARG_SCRATCHPAD, dnnl::memory(p.desc.scratchpad_desc(),
                                                      engine, scratchpad)}} {}
  void operator()(const dnnl::stream& stream, void* src, void* weights,
                  void* dst) {
    src_.set_data_handle(src);
    weights_.set_data_handle(weights);
    dst_.set_data_handle(dst);
    primitive_.execute(stream, arguments_);
  }

 private:
  dnnl::matmul primitive_;
  dnnl::memory src_, weights_, dst_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

struct ChunkRunners {
  Runner cb, y_state, y_token, added;
  ChunkRunners(const dnnl::engine& engine, const Products& p, void* scratchpad)
      : cb(engine, p.cb, p.run_cb, scratchpad),
        y_state(engine, p.y_state, p.run_y_state, scratchpad),
        y_token(engine, p.y_token, p.run_y_token, scratchpad),
        added(engine, p.added, p.run_added, scratchpad) {}
};

struct Worker {
  dnnl::stream stream;
  ChunkRunners full, tail;
  ssd::ChunkBuffers buffers;
};

class Scan {
 public:
  static absl::StatusOr<std::shared_ptr<Scan>> Make(const SsdScan::Problem& p,
                                                    const SsdScan::Args& a,
                                                    Device& device);
  void Run();

 private:
  Scan(const SsdScan::Problem& p, const SsdScan::Args& a) : p_(p), a_(a) {}
  absl::Status Prepare(Device& device);
  ssd::ChunkBuffers Carve(std::byte* at, size_t* bytes) const;
  void RunBlock(Worker& worker, ChunkPlace at);

  SsdScan::Problem p_;
  SsdScan::Args a_;
  Shape shape_;
  int64_t chunk_ = ssd::kMaxChunk;
  Buffer workspace_;
  std::vector<Worker> workers_;
};

// Whether this machine has units, or at least instructions, for bf16.
bool HasBf16(const dnnl::engine& engine, Shape s) {
  s.type = Type::bf16;
  try {
    return !absl::StrContains(
        MakeProducts(engine, s, ssd::kMaxChunk).cb.desc.impl_info_str(), "ref");
  } catch (const dnnl::error&) {
    return false;
  }
}

ssd::ChunkBuffers Scan::Carve(std::byte* at, size_t* bytes) const {
  size_t used = 0;
  const auto take = [&](size_t n) {
    std::byte* const part = at + used;
    used += (n + 127) / 64 * 64;  // and a line more, for whole vectors
    return part;
  };
  const auto floats = [&](int64_t n) {
    return reinterpret_cast<float*>(take(n * sizeof(float)));
  };
  const size_t m = shape_.type == Type::bf16 ? 2 : 4;
  const int64_t q = ssd::kMaxChunk, w = shape_.width(), n = p_.d_state;
  ssd::ChunkBuffers b;
  b.step = floats(shape_.heads * q);
  b.sum_high = floats(shape_.heads * q);
  b.sum_low = floats(shape_.heads * q);
  b.from_start = floats(shape_.heads * q);
  b.to_end = floats(shape_.heads * q);
  b.to_block_end = floats(q);
  b.x = take(q * w * m);
  b.B = take(q * n * m);
  b.C = take(q * n * m);
  b.B_t = take(q * n * m);
  b.x_scaled = take(q * w * m);
  b.cb = floats(q * q);
  b.scores = take(shape_.heads * q * q * m);
  b.y_state = floats(q * w);
  b.y_token = floats(q * w);
  b.state = floats(n * w);
  b.state_m = m == sizeof(float) ? static_cast<void*>(b.state)
                                 : static_cast<void*>(take(n * w * m));
  b.added = floats(n * w);
  *bytes = used;
  return b;
}

absl::StatusOr<std::shared_ptr<Scan>> Scan::Make(const SsdScan::Problem& p,
                                                 const SsdScan::Args& a,
                                                 Device& device) {
  auto scan = std::shared_ptr<Scan>(new Scan(p, a));
  try {
    if (absl::Status s = scan->Prepare(device); !s.ok()) return s;
  } catch (const dnnl::error& e) {
    return absl::InternalError(absl::StrCat("oneDNN: ", e.what()));
  }
  return scan;
}

absl::Status Scan::Prepare(Device& device) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const int threads = device.threads();
  // As many heads a block as divide a group's and leave work for all threads.
  const int64_t most =
      std::clamp<int64_t>(p_.batch * p_.heads / threads, 1, kMostHeads);
  int64_t heads = std::min(most, p_.heads_per_group());
  while (p_.heads_per_group() % heads != 0) --heads;
  shape_ = {.type = Type::bf16,
            .heads = heads,
            .head_dim = p_.head_dim,
            .d_state = p_.d_state,
            .B_stride = a_.B.strides[1],
            .C_stride = a_.C.strides[1]};
  if (p_.dtype != DType::kBF16 || !HasBf16(engine, shape_)) {
    shape_.type = Type::f32;
    if (p_.dtype != DType::kF32) shape_.B_stride = shape_.C_stride = p_.d_state;
  }
  chunk_ = std::min(p_.seqlen, ssd::kMaxChunk);
  const int64_t rest = p_.seqlen % chunk_;
  const Products full = MakeProducts(engine, shape_, chunk_);
  const Products tail = rest == 0 ? full : MakeProducts(engine, shape_, rest);

  size_t bytes = 0;
  Carve(nullptr, &bytes);
  const size_t scratchpad =
      std::max(full.scratchpad_bytes(), tail.scratchpad_bytes());
  const size_t stride = (bytes + scratchpad + 4095) / 4096 * 4096;
  auto workspace = device.Allocate(threads * stride, MemoryClass::kWorkspace);
  if (!workspace.ok()) return workspace.status();
  workspace_ = *std::move(workspace);
  for (int t = 0; t < threads; ++t) {
    auto* const base = static_cast<std::byte*>(workspace_.data()) + t * stride;
    void* const pad = base + bytes;
    workers_.push_back({dnnl::stream(engine), ChunkRunners(engine, full, pad),
                        ChunkRunners(engine, tail, pad), Carve(base, &bytes)});
  }
  return absl::OkStatus();
}

void Scan::RunBlock(Worker& worker, ChunkPlace at) {
  const ssd::ChunkBuffers& b = worker.buffers;
  const bool bf16 = shape_.type == Type::bf16;
  const ssd::ChunkMath math{p_, a_, bf16, b};
  const bool direct = bf16 || p_.dtype == DType::kF32;
  const size_t size = SizeOf(p_.dtype);
  const auto operand = [&](const Tensor& t, void* converted, int64_t inner) {
    return direct ? static_cast<void*>(t.as<std::byte>() +
                                       (at.batch * t.strides[0] +
                                        at.token * t.strides[1] + inner) *
                                           size)
                  : converted;
  };
  math.LoadState(at);
  for (at.token = 0; at.token < p_.seqlen; at.token += chunk_) {
    at.tokens = std::min(chunk_, p_.seqlen - at.token);
    ChunkRunners& run = at.tokens == chunk_ ? worker.full : worker.tail;
    void* const B = operand(a_.B, b.B, at.group * p_.d_state);
    void* const C = operand(a_.C, b.C, at.group * p_.d_state);
    math.Begin(at);
    run.cb(worker.stream, C, B, b.cb);
    math.Scores(at);
    run.y_state(worker.stream, C, b.state_m, b.y_state);
    run.y_token(worker.stream, b.scores, b.x, b.y_token);
    run.added(worker.stream, b.B_t, b.x_scaled, b.added);
    math.End(at);
  }
  math.StoreState(at);
}

void Scan::Run() {
  const int64_t blocks = p_.heads_per_group() / shape_.heads;
  const int64_t tasks = p_.batch * p_.groups * blocks;
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < tasks; ++i) {
    ChunkPlace at = {};
    at.batch = i / blocks / p_.groups;
    at.group = i / blocks % p_.groups;
    at.first_head = at.group * p_.heads_per_group() + i % blocks * shape_.heads;
    at.heads = shape_.heads;
    RunBlock(workers_[omp_get_thread_num()], at);
  }
}

absl::StatusOr<Launch> Plan(const SsdScan::Problem& p, const SsdScan::Args& a,
                            Device& device) {
  auto scan = Scan::Make(p, a, device);
  if (!scan.ok()) return scan.status();
  return [scan = *std::move(scan)](Stream) -> absl::Status {
    scan->Run();
    return absl::OkStatus();
  };
}

const bool registered =
    AddProvider<SsdScan>({.name = "onednn",
                          .device = DeviceKind::kCpu,
                          .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                          .plan = Plan});

}  // namespace
}  // namespace seqmark
