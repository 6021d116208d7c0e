// SPDX-License-Identifier: Apache-2.0
#include "models/checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/safetensors.h"

namespace seqmark {
namespace {

absl::Status SystemError(const std::string& path, absl::string_view did) {
  const int error = errno;
  const std::string what =
      absl::StrCat(path, ": cannot be ", did, ": ", std::strerror(error));
  return error == ENOENT || error == ENOTDIR ? absl::NotFoundError(what)
                                             : absl::InvalidArgumentError(what);
}

absl::Status In(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

}  // namespace

class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path) {
    // Not to wait for a writer, should it be a pipe.
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return SystemError(path, "opened");
    absl::StatusOr<std::unique_ptr<MappedFile>> file = Map(path, fd);
    close(fd);
    return file;
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (size_ > 0) munmap(data_, size_);
  }

  absl::Span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), size_};
  }

 private:
  MappedFile(void* data, size_t size) : data_(data), size_(size) {}

  static absl::StatusOr<std::unique_ptr<MappedFile>> Map(
      const std::string& path, int fd) {
    struct stat info;
    if (fstat(fd, &info) != 0) return SystemError(path, "examined");
    if (!S_ISREG(info.st_mode))
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": not a regular file"));
    const size_t size = static_cast<size_t>(info.st_size);
    void* data = nullptr;
    if (size > 0) {  // mmap takes no length of 0
      data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
      if (data == MAP_FAILED) return SystemError(path, "mapped");
    }
    return std::unique_ptr<MappedFile>(new MappedFile(data, size));
  }

  void* data_;
  size_t size_;
};

Checkpoint::Checkpoint(std::string path) : path_(std::move(path)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& path) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(path));
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return SystemError(path, "opened");
  const std::string single = absl::StrCat(path, "/model.safetensors");
  const std::string index = absl::StrCat(path, "/model.safetensors.index.json");
  absl::Status status;
  if (!S_ISDIR(info.st_mode)) {
    status = checkpoint->AddFile(path, checkpoint->tensors_);
  } else if (Exists(single)) {
    status = checkpoint->AddFile(single, checkpoint->tensors_);
  } else if (Exists(index)) {
    status = checkpoint->AddShards(path, index);
  } else {
    status = absl::NotFoundError(absl::StrCat(
        path, ": neither model.safetensors nor model.safetensors.index.json"));
  }
  if (!status.ok()) return status;
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& path,
                                 std::map<std::string, StoredTensor>& tensors) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  absl::StatusOr<ParsedHeader> header = ParseSafetensorsHeader(bytes);
  if (!header.ok()) return In(path, header.status());
  for (HeaderTensor& t : *header) {
    StoredTensor stored{t.name,
                        path,
                        std::move(t.dtype_name),
                        t.dtype,
                        std::move(t.dims),
                        bytes.subspan(t.begin, t.end - t.begin)};
    tensors.emplace(std::move(t.name), std::move(stored));
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& folder,
                                   const std::string& index) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(index);
  if (!file.ok()) return file.status();
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  absl::StatusOr<ParsedIndex> parsed = ParseSafetensorsIndex(
      {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!parsed.ok()) return In(index, parsed.status());

  std::map<std::string, std::map<std::string, StoredTensor>> shards;
  for (const auto& [name, shard] : *parsed) {
    const std::string path = absl::StrCat(folder, "/", shard);
    const auto [at, is_new] = shards.try_emplace(shard);
    if (is_new) {
      const absl::Status status = AddFile(path, at->second);
      if (!status.ok())
        return In(index, absl::Status(status.code(),
                                      absl::StrCat("tensor ", Quoted(name),
                                                   ": ", status.message())));
    }
    const auto tensor = at->second.find(name);
    if (tensor == at->second.end())
      return absl::InvalidArgumentError(
          absl::StrCat(index, ": tensor ", Quoted(name), ": not in ", path));
    tensors_.emplace(name, std::move(tensor->second));
  }
  return absl::OkStatus();
}

absl::StatusOr<StoredTensor> Checkpoint::Find(absl::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  if (found != tensors_.end()) return found->second;
  return absl::NotFoundError(absl::StrCat(path_, ": no tensor ", Quoted(name)));
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

}  // namespace seqmark
