// SPDX-License-Identifier: Apache-2.0
//
// Headers and checkpoints, right and wrong in every way that has a name.
#include "models/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "models/checkpoint.h"

extern "C" int safetensors_fuzz(const uint8_t* data, size_t size);

namespace seqmark {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::string Number(uint64_t value) {
  std::string bytes(8, '\0');
  for (char& byte : bytes) {
    byte = static_cast<char>(value & 0xff);
    value >>= 8;
  }
  return bytes;
}

// A file of this header, padded to a multiple of 8, and `data` bytes of data.
std::string File(std::string header, size_t data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string file = Number(header.size()) + header;
  for (size_t i = 0; i < data; ++i) file.push_back(static_cast<char>(i));
  return file;
}

std::string Entry(absl::string_view name, absl::string_view dtype,
                  absl::string_view shape, uint64_t begin, uint64_t end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[",
                      shape, "],\"data_offsets\":[", begin, ",", end, "]}");
}

std::string One(absl::string_view dtype, absl::string_view shape,
                uint64_t begin, uint64_t end, size_t data) {
  return File(absl::StrCat("{", Entry("a.b", dtype, shape, begin, end), "}"),
              data);
}

absl::StatusOr<ParsedHeader> Parse(const std::string& file) {
  return ParseSafetensorsHeader(
      {reinterpret_cast<const std::byte*>(file.data()), file.size()});
}

std::string Why(const std::string& file) {
  const absl::StatusOr<ParsedHeader> header = Parse(file);
  if (header.ok()) return "no error";
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(header.status().message());
}

std::string Valid() {
  return File(absl::StrCat("{\"__metadata__\":{\"format\":\"pt\"},",
                           Entry("w", "F32", "2,3", 4, 28), ",",
                           Entry("flags", "BOOL", "3", 28, 31), ",",
                           Entry("scalar", "BF16", "", 0, 2), ",",
                           Entry("empty", "I64", "0,7", 0, 0), ",",
                           Entry("half", "F16", "1", 2, 4), "}"),
              31);
}

TEST(SafetensorsHeader, Reads) {
  const absl::StatusOr<ParsedHeader> header = Parse(Valid());
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->size(), 5u);
  const size_t data = Valid().size() - 31;
  const HeaderTensor& w = (*header)[3];
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.dtype, DType::kF32);
  EXPECT_THAT(w.dims, ElementsAre(2, 3));
  EXPECT_EQ(w.begin, data + 4);
  EXPECT_EQ(w.end, data + 28);
  EXPECT_EQ((*header)[0].name, "empty");
  EXPECT_THAT((*header)[0].dims, ElementsAre(0, 7));
  EXPECT_EQ((*header)[1].dtype, DType::kBF16);
  EXPECT_THAT((*header)[1].dims, ElementsAre());
  EXPECT_EQ((*header)[2].dtype, DType::kF16);
  EXPECT_EQ((*header)[4].dtype, std::nullopt);
  EXPECT_EQ((*header)[4].dtype_name, "BOOL");
  EXPECT_TRUE(Parse(File("{}", 0)).ok());
}

TEST(SafetensorsHeader, EveryTruncationIsAnError) {
  const std::string file = Valid();
  for (size_t n = 0; n < file.size(); ++n)
    EXPECT_FALSE(Parse(file.substr(0, n)).ok()) << n;
}

TEST(SafetensorsHeader, LengthOfTheHeader) {
  EXPECT_THAT(Why("1234567"), HasSubstr("7 bytes, fewer than the 8"));
  EXPECT_THAT(Why(Number(200'000'000) + "{}"), HasSubstr("allows 100000000"));
  EXPECT_THAT(Why(Number(~uint64_t{0}) + "{}"),
              HasSubstr("a header of 18446744073709551615 bytes"));
  EXPECT_THAT(Why(Number(3) + "{}"), HasSubstr("truncated"));
  EXPECT_THAT(Why(Number(0) + "{}"), HasSubstr("start with '{'"));
  // Of a length that is allowed and there, but nothing like a header.
  EXPECT_THAT(Why(File(std::string(20'000'000, '['), 0)),
              HasSubstr("start with '{'"));
  EXPECT_THAT(Why(File("{\"a\":" + std::string(1'000'000, '['), 0)),
              HasSubstr("tensor \"a\": unexpected an array"));
}

TEST(SafetensorsHeader, Json) {
  for (const char* header :
       {"{", "{}}", "{\"a\"}", "{\"a\":{\"dtype\":", "{\"a\":nul}",
        "{\"\xff\":{}}", "{\"a\":{\"shape\":[1e999]}}",
        "{\"a\":{\"shape\":[01]}}"})
    EXPECT_THAT(Why(File(header, 0)), HasSubstr("not valid JSON")) << header;
  EXPECT_THAT(Why(File("{\"a\":{}}", 0)), HasSubstr("\"a\": no \"dtype\""));
  EXPECT_THAT(Why(File("{\"a\":7}", 0)),
              HasSubstr("tensor \"a\": unexpected the number 7"));
  EXPECT_THAT(Why(File("{\"a\":{\"dtype\":{}}}", 0)),
              HasSubstr("tensor \"a\": \"dtype\": unexpected an object"));
  EXPECT_THAT(Why(File("{\"a\":{\"shape\":[1,-2]}}", 0)),
              HasSubstr("\"shape\": unexpected the number -2"));
  EXPECT_THAT(Why(File("{\"a\":{\"shape\":[1.5]}}", 0)),
              HasSubstr("\"shape\": unexpected the number \"1.5\""));
  EXPECT_THAT(Why(File("{\"a\":{\"shape\":[[1]]}}", 0)),
              HasSubstr("\"shape\": unexpected an array"));
  EXPECT_THAT(Why(File("{\"a\":{\"shape\":3}}", 0)),
              HasSubstr("\"shape\": unexpected the number 3"));
  EXPECT_THAT(Why(File("{\"a\":{\"offset\":3}}", 0)),
              HasSubstr("\"offset\": not a field"));
  EXPECT_THAT(Why(File("{\"__metadata__\":{\"n\":3}}", 0)),
              HasSubstr("\"__metadata__\": \"n\": unexpected the number 3"));
}

TEST(SafetensorsHeader, Duplicates) {
  const std::string a = Entry("a", "U8", "0", 0, 0);
  EXPECT_THAT(Why(File(absl::StrCat("{", a, ",", a, "}"), 0)),
              HasSubstr("tensor \"a\": comes twice"));
  EXPECT_THAT(Why(File("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0)),
              HasSubstr("tensor \"a\": \"dtype\": comes twice"));
}

TEST(SafetensorsHeader, Sizes) {
  EXPECT_EQ(Why(One("F32", "2,3", 0, 24, 24)), "no error");
  EXPECT_THAT(Why(One("F32", "2,3", 0, 20, 20)),
              HasSubstr("\"a.b\": F32 of shape [2, 3] is 24 bytes, but its "
                        "offsets hold 20"));
  EXPECT_THAT(Why(One("F128", "1", 0, 16, 16)),
              HasSubstr("its dtype \"F128\" is not one"));
  EXPECT_THAT(Why(One("F4", "3", 0, 1, 1)), HasSubstr("offsets hold 1"));
  EXPECT_EQ(Why(One("F4", "4", 0, 2, 2)), "no error");
  // 2^63 * 2 floats and 2^32 * 2^32 of them, both 0 modulo 2^64.
  for (const char* shape : {"9223372036854775808,2", "4294967296,4294967296",
                            "18446744073709551615"})
    EXPECT_THAT(Why(One("F32", shape, 0, 0, 0)),
                HasSubstr("more bytes than can be counted"));
  EXPECT_THAT(Why(One("U8", "18446744073709551616", 0, 0, 0)),
              HasSubstr("unexpected the number"));
  EXPECT_THAT(Why(One("U8", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", 0, 1, 1)),
              HasSubstr("more than 16 numbers"));
  EXPECT_THAT(Why(File("{\"a\":{\"dtype\":\"U8\",\"shape\":[],"
                       "\"data_offsets\":[0]}}",
                       0)),
              HasSubstr("must be two numbers, not 1"));
}

TEST(SafetensorsHeader, Places) {
  EXPECT_THAT(Why(One("F32", "1", 0, 4, 3)), HasSubstr("truncated"));
  EXPECT_THAT(
      Why(One("F32", "1", 18446744073709551612u, 18446744073709551615u, 4)),
      HasSubstr("truncated"));
  EXPECT_THAT(Why(One("F32", "1", 4, 0, 4)), HasSubstr("before they begin"));
  EXPECT_THAT(Why(One("U8", "3", 0, 3, 5)), HasSubstr("the last 2 bytes"));
  EXPECT_THAT(Why(One("U8", "3", 1, 4, 4)), HasSubstr("bytes of no tensor"));
  const auto two = [](uint64_t begin, uint64_t end, size_t data) {
    return File(absl::StrCat("{", Entry("a", "U8", "4", 0, 4), ",",
                             Entry("b", "F16", "2", begin, end), "}"),
                data);
  };
  EXPECT_EQ(Why(two(4, 8, 8)), "no error");
  EXPECT_THAT(Why(two(2, 6, 6)),
              AllOf(HasSubstr("\"b\""), HasSubstr("inside the tensor before")));
  EXPECT_THAT(Why(two(0, 4, 4)), HasSubstr("inside the tensor before"));
  EXPECT_THAT(Why(two(6, 10, 10)), HasSubstr("bytes of no tensor"));
  EXPECT_THAT(Why(two(5, 9, 9)), HasSubstr("not a multiple of the 2 bytes"));
}

TEST(SafetensorsIndex, Reads) {
  const auto index = ParseSafetensorsIndex(
      R"({"metadata":{"total_size":1.5e3,"x":[{"weight_map":[null,true]}]},
          "weight_map":{"a":"1.safetensors","b":"1.safetensors"},"more":-1})");
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_THAT(*index, ElementsAre(testing::Pair("a", "1.safetensors"),
                                  testing::Pair("b", "1.safetensors")));
}

TEST(SafetensorsIndex, Faults) {
  const auto why = [](absl::string_view text) {
    return std::string(ParseSafetensorsIndex(text).status().message());
  };
  EXPECT_THAT(why(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(why("[]"), HasSubstr("unexpected an array"));
  EXPECT_THAT(why("{}"), HasSubstr("no \"weight_map\""));
  EXPECT_THAT(why("{\"weight_map\":[]}"), HasSubstr("unexpected an array"));
  EXPECT_THAT(why("{\"weight_map\":{\"a\":1}}"),
              HasSubstr("tensor \"a\": unexpected the number 1"));
  EXPECT_THAT(why("{\"weight_map\":{\"a\":{}}}"),
              HasSubstr("tensor \"a\": unexpected an object"));
  EXPECT_THAT(why("{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}"),
              HasSubstr("tensor \"a\": comes twice"));
  EXPECT_THAT(why("{\"weight_map\":{},\"weight_map\":{}}"),
              HasSubstr("comes twice"));
  for (const char* file :
       {"../x", "/etc/passwd", "", ".", "..", "a/b", "a\\\\b", "a\\u0000b"})
    EXPECT_THAT(why(absl::StrCat("{\"weight_map\":{\"a\":\"", file, "\"}}")),
                HasSubstr("not the name of a file beside the index"));
}

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest()
      : folder_(fs::path(testing::TempDir()) /
                absl::StrCat("seqmark_checkpoint_", getpid())) {
    fs::create_directories(folder_);
  }
  ~CheckpointTest() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  std::string WhyNot(const fs::path& path) const {
    const auto checkpoint = Checkpoint::Open(path.string());
    if (checkpoint.ok()) return "no error";
    EXPECT_TRUE(absl::IsNotFound(checkpoint.status()) ||
                absl::IsInvalidArgument(checkpoint.status()));
    EXPECT_THAT(std::string(checkpoint.status().message()),
                StartsWith(folder_.string()));
    return std::string(checkpoint.status().message());
  }

  const fs::path folder_;
};

TEST_F(CheckpointTest, OneFile) {
  Write("model.safetensors", Valid());
  for (const fs::path& path : {folder_, folder_ / "model.safetensors"}) {
    const auto checkpoint = Checkpoint::Open(path.string());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_THAT((*checkpoint)->names(),
                ElementsAre("empty", "flags", "half", "scalar", "w"));
    const auto w = (*checkpoint)->Find("w");
    ASSERT_TRUE(w.ok());
    EXPECT_EQ(w->file, (folder_ / "model.safetensors").string());
    ASSERT_EQ(w->bytes.size(), 24u);
    EXPECT_EQ(w->bytes[0], std::byte{4});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(w->bytes.data()) % 4, 0u);
    const absl::Status missing = (*checkpoint)->Find("v").status();
    EXPECT_TRUE(absl::IsNotFound(missing));
    EXPECT_THAT(std::string(missing.message()),
                AllOf(HasSubstr(path.string()), HasSubstr("no tensor \"v\"")));
  }
}

TEST_F(CheckpointTest, Shards) {
  Write("1.safetensors", One("F32", "1", 0, 4, 4));
  Write("2.safetensors",
        File(absl::StrCat("{", Entry("c", "U8", "3", 0, 3), "}"), 3));
  const auto index = [&](const std::string& map) {
    Write("model.safetensors.index.json",
          absl::StrCat("{\"weight_map\":{", map, "}}"));
  };
  index(R"("a.b":"1.safetensors","c":"2.safetensors")");
  const auto checkpoint = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("a.b", "c"));
  EXPECT_EQ((*checkpoint)->Find("c")->bytes.size(), 3u);

  index(R"("a.b":"1.safetensors","c":"3.safetensors")");
  EXPECT_THAT(WhyNot(folder_), AllOf(HasSubstr("tensor \"c\""),
                                     HasSubstr("3.safetensors: cannot")));
  index(R"("a.b":"1.safetensors","c":"1.safetensors")");
  EXPECT_THAT(WhyNot(folder_), HasSubstr("tensor \"c\": not in"));
  index(R"("a.b":"../1.safetensors")");
  EXPECT_THAT(WhyNot(folder_), HasSubstr("index.json: tensor \"a.b\""));
  Write("2.safetensors", "short");
  index(R"("a.b":"1.safetensors","c":"2.safetensors")");
  EXPECT_THAT(WhyNot(folder_), HasSubstr("2.safetensors: not a safetensors"));
}

TEST_F(CheckpointTest, NoSuchFile) {
  EXPECT_THAT(WhyNot(folder_ / "none"), HasSubstr("No such file"));
  EXPECT_THAT(WhyNot(folder_), HasSubstr("neither model.safetensors nor"));
  Write("model.safetensors", "");
  EXPECT_THAT(WhyNot(folder_), HasSubstr("0 bytes"));
  fs::remove(folder_ / "model.safetensors");
  fs::create_directory(folder_ / "model.safetensors");
  EXPECT_THAT(WhyNot(folder_), HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(WhyNot(folder_ / "pipe"), HasSubstr("not a regular file"));
}

TEST_F(CheckpointTest, EveryGoldenOneOpens) {
  int folders = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(SEQMARK_SOURCE_DIR) /
                                                  "tests/golden/models")) {
    const auto checkpoint = Checkpoint::Open(entry.path().string());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    ++folders;
  }
  EXPECT_GE(folders, 10);
}

// What libFuzzer does at length, for about a second: bytes changed, cut out,
// repeated, and numbers of the text replaced by awkward ones.
TEST(SafetensorsFuzz, Mutations) {
  const std::string seeds[] = {
      Valid(), One("F32", "2,3", 0, 24, 24),
      R"({"metadata":{"total_size":3},"weight_map":{"a":"1.safetensors"}})"};
  const char* const awkward[] = {"0", "-1", "1e99", "18446744073709551615",
                                 "{", "]",  "\"",   "__metadata__",
                                 "[", ","};
  std::mt19937 random(1);
  for (int i = 0; i < 60'000; ++i) {
    std::string file = seeds[i % std::size(seeds)];
    for (unsigned edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = random() % file.size();
      switch (random() % 4) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file.erase(at, 1 + random() % 9);
          break;
        case 2:
          file.insert(at, file.substr(random() % file.size(), random() % 40));
          break;
        default:
          file.replace(at, random() % 4, awkward[random() % 10]);
      }
      if (file.empty()) file = "{";
    }
    safetensors_fuzz(reinterpret_cast<const uint8_t*>(file.data()),
                     file.size());
  }
}

}  // namespace
}  // namespace seqmark
