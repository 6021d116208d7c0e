// SPDX-License-Identifier: Apache-2.0
//
// Flash attention on the CPU: oneDNN's matmul (AMX tiles or dot-product
// instructions where the CPU has them) for the two products of a tile,
// softmax_highway.cc between them. Three things keep a tile's products near
// the matrix units' rate:
// - K^T and V are packed once a call into the layout that the products read,
//   in granules of keys; a tile is any run of granules, so that tiles are
//   long, yet end within a granule of the diagonal or the window.
// - The query heads that share a key head are stacked: 256 rows a tile.
// - Primitives are made for one thread, once a process for tiles of the same
//   size, and run inside a thread of the call; no tile is shared between
//   threads.
#include <omp.h>

#include <cmath>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "fixtures/op_fixture.h"
#include "ops/attention/attention.h"
#include "ops/attention/softmax_highway.h"
#include "ops/onednn_matmul.h"

namespace seqmark {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

constexpr int64_t kRows = 256;      // of a tile: queries x heads of a group
constexpr int64_t kTileKeys = 512;  // scores of a tile: 512 KiB, in L2
constexpr int64_t kGranule = 64;
constexpr int64_t kBlock = kAttentionOutputBlock;

constexpr int64_t RoundUp(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// oneDNN splits a primitive for the threads there are when it is made.
class OneThread {
 public:
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }

 private:
  int threads_;
};

// The products of a tile of `keys` keys, and where their operands are.
struct TileProducts {
  dnnl::matmul scores;   // (rows, depth) x (depth, keys) = (rows, keys)
  dnnl::matmul outputs;  // (rows, keys) x (keys, kBlock) += (rows, kBlock)
  memory::desc q, k, s, w, v, o, scores_scratch, outputs_scratch;
};

// What the products of every tile of a problem have in common.
struct Products {
  DType compute = DType::kF32;  // of the operands
  int64_t rows = 1;
  int64_t depth = 1;                // head_dim, padded
  int64_t granule = 1;              // keys
  std::vector<TileProducts> tiles;  // of 1, 2, ... granules

  void Make(int64_t keys, int64_t most_keys);
  bool GranulesConcatenate() const;
};

void Products::Make(int64_t keys, int64_t most_keys) {
  const auto type = DnnlType(compute), f32 = memory::data_type::f32;
  dnnl::post_ops add;
  add.append_sum(1.0f);
  dnnl::primitive_attr accumulate;
  accumulate.set_post_ops(add);
  granule = keys;
  tiles.clear();
  for (int64_t n = granule; n <= most_keys; n += granule) {
    TileProducts& t = tiles.emplace_back();
    t.q = memory::desc({rows, depth}, type, Tag::ab);
    t.s = memory::desc({rows, n}, f32, Tag::ab);
    t.w = memory::desc({rows, n}, type, Tag::ab);
    t.o = memory::desc({rows, kBlock}, f32, Tag::ab);
    const auto scores =
        DescribeMatmul(t.q, memory::desc({depth, n}, type, Tag::any), {}, t.s);
    const auto outputs = DescribeMatmul(
        t.w, memory::desc({n, kBlock}, type, Tag::any), {}, t.o, accumulate);
    t.k = scores.weights_desc();
    t.v = outputs.weights_desc();
    t.scores_scratch = scores.scratchpad_desc();
    t.outputs_scratch = outputs.scratchpad_desc();
    t.scores = dnnl::matmul(scores);
    t.outputs = dnnl::matmul(outputs);
  }
}

// Whether a tile's packed keys and values are those of its granules one after
// another, for each size of tile.
bool Products::GranulesConcatenate() const {
  dnnl::stream stream(DnnlCpu());
  const auto pack = [&](const std::vector<uint8_t>& from,
                        const memory::dims& dims, Tag tag,
                        const memory::desc& to_desc, uint8_t* to) {
    memory plain({dims, DnnlType(compute), tag}, DnnlCpu(),
                 const_cast<uint8_t*>(from.data()));
    memory packed(to_desc, DnnlCpu(), to);
    dnnl::reorder(plain, packed).execute(stream, plain, packed);
    stream.wait();
  };
  const auto concatenates = [&](int64_t width, Tag tag,
                                memory::desc TileProducts::*desc,
                                size_t count) {
    const memory::desc &whole = tiles[count - 1].*desc, &part = tiles[0].*desc;
    if (whole.get_size() != count * part.get_size()) return false;
    const int64_t keys = count * granule;
    // Small integers, exact in every type, that differ from key to key.
    std::vector<uint8_t> rows(keys * width * SizeOf(compute));
    for (int64_t i = 0; i < keys * width; ++i)
      StoreElement(compute, rows.data(), i, (i / width + i % width * 7) % 251);
    std::vector<uint8_t> tile(whole.get_size()), granules(tile.size());
    const auto dims = [&](int64_t n) {
      return tag == Tag::ba ? memory::dims{width, n} : memory::dims{n, width};
    };
    pack(rows, dims(keys), tag, whole, tile.data());
    const size_t granule_bytes = granule * width * SizeOf(compute);
    for (size_t g = 0; g < count; ++g)
      pack({rows.begin() + g * granule_bytes,
            rows.begin() + (g + 1) * granule_bytes},
           dims(granule), tag, part, granules.data() + g * part.get_size());
    return tile == granules;
  };
  for (size_t count = 2; count <= tiles.size(); ++count)
    if (!concatenates(depth, Tag::ba, &TileProducts::k, count) ||
        !concatenates(kBlock, Tag::ab, &TileProducts::v, count))
      return false;
  return true;
}

// Kept for as long as the process runs: the layers of a model share them.
std::shared_ptr<const Products> CachedProducts(DType compute, int64_t rows,
                                               int64_t depth) {
  static auto* const made = new std::map<std::tuple<DType, int64_t, int64_t>,
                                         std::shared_ptr<const Products>>();
  std::shared_ptr<const Products>& cached = (*made)[{compute, rows, depth}];
  if (cached == nullptr) {
    const OneThread one_thread;
    Products products{.compute = compute, .rows = rows, .depth = depth};
    products.Make(kGranule, kTileKeys);
    // A layout that cannot be cut has one tile size.
    if (!products.GranulesConcatenate())
      products.Make(kTileKeys / 2, kTileKeys / 2);
    cached = std::make_shared<const Products>(std::move(products));
  }
  return cached;
}

// What a thread works in; its memory objects point into its part of scratch.
struct Worker {
  using Arguments = std::unordered_map<int, memory>;
  dnnl::stream stream{DnnlCpu()};
  std::vector<Arguments> scores, outputs;  // for tiles of 1, 2, ... granules
  memory k_plain, v_plain, k_packed, v_packed;
  SoftmaxTile tile;
  std::byte* q = nullptr;     // (rows, depth)
  std::byte* rows = nullptr;  // (granule, depth or kBlock) before packing
  absl::Status status;
};

class FlashAttention {
 public:
  FlashAttention(const Attention::Problem& p, const Attention::Args& a)
      : p_(p), a_(a) {}

  absl::Status Init(Device& device);
  absl::Status Run();

 private:
  absl::Status MakeWorkers(Device& device);
  void Pack(Worker& worker, int64_t item);
  void Attend(Worker& worker, int64_t item);
  // The granules [begin, end) for the worker's block of queries.
  void AttendGranules(Worker& worker, int64_t kv, int64_t begin, int64_t end);

  // Packed granules are those of sinks, then the others that are seen.
  int64_t Slot(int64_t index) const {
    return index < sink_granules_ ? index
                                  : sink_granules_ + index - first_granule_;
  }
  int64_t GranuleOf(int64_t slot) const {
    return slot < sink_granules_ ? slot
                                 : slot - sink_granules_ + first_granule_;
  }
  // The packed granule `index` of the key head `kv` (of all sequences).
  std::byte* PackedK(int64_t kv, int64_t index) const {
    return static_cast<std::byte*>(scratch_.data()) +
           (kv * granules_ + Slot(index)) * k_bytes_;
  }
  std::byte* PackedV(int64_t kv, int64_t block, int64_t index) const {
    return static_cast<std::byte*>(scratch_.data()) +
           p_.batch * p_.kv_heads * granules_ * k_bytes_ +
           ((kv * blocks_ + block) * granules_ + Slot(index)) * v_bytes_;
  }
  size_t packed_bytes() const {
    return p_.batch * p_.kv_heads * granules_ * (k_bytes_ + blocks_ * v_bytes_);
  }
  // Row `l` of sequence `b`, head `h`.
  std::byte* At(const Tensor& t, int64_t b, int64_t l, int64_t h) const {
    return t.as<std::byte>() +
           (b * t.strides[0] + l * t.strides[1] + h * t.dims[3]) *
               SizeOf(t.dtype);
  }

  const Attention::Problem p_;
  const Attention::Args a_;
  DType compute_ = DType::kF32;  // of the products' operands
  int64_t group_ = 1;            // query heads a key head
  int64_t block_queries_ = 1;
  int64_t rows_ = 1;                  // block_queries_ * group_
  int64_t depth_ = 1;                 // head_dim, padded
  int64_t blocks_ = 1;                // of kBlock, that hold value_head_dim
  int64_t granule_ = 1;               // keys
  int64_t sink_granules_ = 0;         // that lie before those of any window
  int64_t first_granule_ = 0;         // of those
  int64_t granules_ = 1;              // sinks', and from there to the last key
  size_t k_bytes_ = 0, v_bytes_ = 0;  // of a packed granule
  std::shared_ptr<const Products> products_;
  std::vector<Worker> workers_;
  dnnl::reorder pack_k_, pack_v_;  // of a granule
  Buffer scratch_;  // packed keys and values, then workers' parts
};

absl::Status FlashAttention::Init(Device& device) {
  // Without products of the dtype they are f32: exact, where bf16 products of
  // f16 inputs would not be.
  compute_ = DnnlHasMatmul(p_.dtype) ? p_.dtype : DType::kF32;
  group_ = p_.heads / p_.kv_heads;
  block_queries_ = std::max<int64_t>(kRows / group_ / 16, 1) * 16;
  block_queries_ = std::min(block_queries_, p_.seqlen);
  rows_ = block_queries_ * group_;
  depth_ = RoundUp(p_.head_dim, 32);
  blocks_ = RoundUp(p_.value_dim(), kBlock) / kBlock;
  absl::Status status =
      CatchDnnl([&] { products_ = CachedProducts(compute_, rows_, depth_); });
  if (!status.ok()) return status;
  granule_ = products_->granule;
  first_granule_ = p_.first_key() / granule_;
  sink_granules_ =
      std::min(RoundUp(p_.sink, granule_) / granule_, first_granule_);
  granules_ =
      sink_granules_ + RoundUp(p_.keys(), granule_) / granule_ - first_granule_;
  k_bytes_ = products_->tiles[0].k.get_size();
  v_bytes_ = products_->tiles[0].v.get_size();
  absl::Status made;
  status = CatchDnnl([&] { made = MakeWorkers(device); });
  return status.ok() ? made : status;
}

absl::Status FlashAttention::MakeWorkers(Device& device) {
  // One thread's parts, each on cache lines of its own.
  const TileProducts& largest = products_->tiles.back();
  size_t bytes = 0;
  const auto part = [&](size_t size) {
    const size_t at = bytes;
    bytes += RoundUp(size, 256);
    return at;
  };
  const size_t q = part(largest.q.get_size()), s = part(largest.s.get_size()),
               w = part(largest.w.get_size()),
               o = part(blocks_ * largest.o.get_size()),
               greatest = part(rows_ * sizeof(float)),
               sums = part(rows_ * sizeof(float)),
               rows =
                   part(granule_ * std::max(depth_, kBlock) * SizeOf(compute_));
  size_t scratch_bytes = 0;
  for (const TileProducts& t : products_->tiles)
    scratch_bytes = std::max({scratch_bytes, t.scores_scratch.get_size(),
                              t.outputs_scratch.get_size()});
  const size_t scratch = part(scratch_bytes);
  const size_t packed = RoundUp(packed_bytes(), 256);
  auto buffer = device.Allocate(packed + bytes * device.threads(),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  scratch_ = *std::move(buffer);

  const memory::desc k_plain({depth_, granule_}, DnnlType(compute_), Tag::ba),
      v_plain({granule_, kBlock}, DnnlType(compute_), Tag::ab);
  workers_.resize(device.threads());
  for (size_t i = 0; i < workers_.size(); ++i) {
    Worker& worker = workers_[i];
    std::byte* const base =
        static_cast<std::byte*>(scratch_.data()) + packed + i * bytes;
    const auto at = [&](const memory::desc& desc, size_t offset) {
      return memory(desc, DnnlCpu(), base + offset);
    };
    for (const TileProducts& t : products_->tiles) {
      worker.scores.push_back(
          {{DNNL_ARG_SRC, at(t.q, q)},
           {DNNL_ARG_WEIGHTS, memory(t.k, DnnlCpu(), scratch_.data())},
           {DNNL_ARG_DST, at(t.s, s)},
           {DNNL_ARG_SCRATCHPAD, at(t.scores_scratch, scratch)}});
      worker.outputs.push_back(
          {{DNNL_ARG_SRC, at(t.w, w)},
           {DNNL_ARG_WEIGHTS, memory(t.v, DnnlCpu(), scratch_.data())},
           {DNNL_ARG_DST, at(t.o, o)},
           {DNNL_ARG_SCRATCHPAD, at(t.outputs_scratch, scratch)}});
    }
    worker.k_plain = at(k_plain, rows);
    worker.v_plain = at(v_plain, rows);
    worker.k_packed = memory(products_->tiles[0].k, DnnlCpu(), scratch_.data());
    worker.v_packed = memory(products_->tiles[0].v, DnnlCpu(), scratch_.data());
    worker.q = base + q;
    worker.rows = base + rows;
    worker.tile = {
        .scores = reinterpret_cast<float*>(base + s),
        .weights = base + w,
        .weights_dtype = compute_,
        .rows = rows_,
        .group = group_,
        .reach = p_.reach(),
        .sink = p_.sink,
        .scale = static_cast<float>(M_LOG2E / std::sqrt(p_.head_dim)),
        .greatest = reinterpret_cast<float*>(base + greatest),
        .sums = reinterpret_cast<float*>(base + sums),
        .outputs = reinterpret_cast<float*>(base + o),
        .blocks = blocks_};
  }
  const OneThread one_thread;
  pack_k_ = dnnl::reorder(workers_[0].k_plain, workers_[0].k_packed);
  pack_v_ = dnnl::reorder(workers_[0].v_plain, workers_[0].v_packed);
  return absl::OkStatus();
}

// Keys beyond the last are packed as zeros: never seen, but multiplied.
void FlashAttention::Pack(Worker& worker, int64_t item) {
  const int64_t index = GranuleOf(item % granules_);
  const int64_t kv = item / granules_;
  const int64_t b = kv / p_.kv_heads, h = kv % p_.kv_heads;
  const int64_t key = index * granule_;
  const int64_t keys = std::min(granule_, p_.keys() - key);
  const auto load = [&](const Tensor& t, int64_t at, int64_t width,
                        int64_t padded) {
    AttentionLoad({.data = At(t, b, key, h) + at * SizeOf(t.dtype),
                   .dtype = t.dtype,
                   .rows = keys,
                   .width = width,
                   .stride = t.strides[1]},
                  compute_, worker.rows, padded);
    const size_t row_bytes = padded * SizeOf(compute_);
    std::memset(worker.rows + keys * row_bytes, 0,
                (granule_ - keys) * row_bytes);
  };
  load(a_.k, 0, p_.head_dim, depth_);
  worker.k_packed.set_data_handle(PackedK(kv, index));
  pack_k_.execute(worker.stream, worker.k_plain, worker.k_packed);
  for (int64_t block = 0; block < blocks_; ++block) {
    const int64_t at = block * kBlock;
    load(a_.v, at, std::min(kBlock, p_.value_dim() - at), kBlock);
    worker.v_packed.set_data_handle(PackedV(kv, block, index));
    pack_v_.execute(worker.stream, worker.v_plain, worker.v_packed);
  }
}

// One block of queries of all heads that share a key head.
void FlashAttention::Attend(Worker& worker, int64_t item) {
  const int64_t kv = item % (p_.batch * p_.kv_heads);
  const int64_t b = kv / p_.kv_heads, h = kv % p_.kv_heads * group_;
  const int64_t query = item / (p_.batch * p_.kv_heads) * block_queries_;
  const int64_t queries = std::min(block_queries_, p_.seqlen - query);
  const size_t row_bytes = depth_ * SizeOf(compute_);
  std::memset(worker.q + queries * group_ * row_bytes, 0,
              (block_queries_ - queries) * group_ * row_bytes);
  const auto rows_of = [&](const Tensor& t) {
    return TensorRows{.data = At(t, b, query, h),
                      .dtype = t.dtype,
                      .rows = queries * group_,
                      .width = t.dims[3],
                      .group = group_,
                      .stride = t.strides[1]};
  };
  AttentionLoad(rows_of(a_.q), compute_, worker.q, depth_);
  SoftmaxTile& tile = worker.tile;
  tile.query = p_.past + query;
  std::fill_n(tile.greatest, rows_, -HUGE_VALF);
  std::fill_n(tile.sums, rows_, 0.0f);
  std::fill_n(tile.outputs, blocks_ * rows_ * kBlock, 0.0f);

  const int64_t first =
      std::max<int64_t>(0, p_.past + query + 1 - p_.reach()) / granule_;
  const int64_t last = (p_.past + query + queries - 1) / granule_;
  AttendGranules(worker, kv, 0,
                 std::min(RoundUp(p_.sink, granule_) / granule_, first));
  AttendGranules(worker, kv, first, last + 1);
  AttentionStore(tile, rows_of(a_.o));
}

void FlashAttention::AttendGranules(Worker& worker, int64_t kv, int64_t begin,
                                    int64_t end) {
  if (begin == end) return;
  SoftmaxTile& tile = worker.tile;
  // The fewest tiles, of equal sizes rather than a short last one.
  const auto most = static_cast<int64_t>(products_->tiles.size());
  const int64_t tiles = RoundUp(end - begin, most) / most;
  const int64_t even = RoundUp(end - begin, tiles) / tiles;
  for (int64_t index = begin; index < end; index += even) {
    const int64_t count = std::min(even, end - index);
    const TileProducts& products = products_->tiles[count - 1];
    auto& scores = worker.scores[count - 1];
    scores.at(DNNL_ARG_WEIGHTS).set_data_handle(PackedK(kv, index));
    products.scores.execute(worker.stream, scores);
    tile.key = index * granule_;
    tile.keys = count * granule_;
    AttentionSoftmax(tile);
    auto& outputs = worker.outputs[count - 1];
    for (int64_t block = 0; block < blocks_; ++block) {
      outputs.at(DNNL_ARG_WEIGHTS).set_data_handle(PackedV(kv, block, index));
      outputs.at(DNNL_ARG_DST)
          .set_data_handle(tile.outputs + block * rows_ * kBlock);
      products.outputs.execute(worker.stream, outputs);
    }
  }
}

absl::Status FlashAttention::Run() {
  const int64_t heads = p_.batch * p_.kv_heads;
  const int64_t blocks = RoundUp(p_.seqlen, block_queries_) / block_queries_;
#pragma omp parallel num_threads(static_cast <int>(workers_.size()))
  {
    Worker& worker = workers_[omp_get_thread_num()];
    worker.status = absl::OkStatus();
#pragma omp for schedule(static)
    for (int64_t item = 0; item < heads * granules_; ++item)
      worker.status.Update(CatchDnnl([&] { Pack(worker, item); }));
      // The last queries see the most keys: they go first.
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = heads * blocks - 1; item >= 0; --item)
      worker.status.Update(CatchDnnl([&] { Attend(worker, item); }));
  }
  absl::Status status;
  for (const Worker& worker : workers_) status.Update(worker.status);
  return status;
}

absl::StatusOr<Launch> Plan(const Attention::Problem& p,
                            const Attention::Args& a, Device& device) {
  auto attention = std::make_shared<FlashAttention>(p, a);
  if (absl::Status s = attention->Init(device); !s.ok()) return s;
  return [attention](Stream) { return attention->Run(); };
}

const bool registered =
    AddProvider<Attention>({.name = "onednn",
                            .device = DeviceKind::kCpu,
                            .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                            .plan = Plan});

}  // namespace
}  // namespace seqmark
