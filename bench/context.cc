// SPDX-License-Identifier: Apache-2.0
#include "bench/context.h"

#include <sys/utsname.h>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "fixtures/plant.h"
#include "generated/git_version.h"
#include "nlohmann/json.hpp"
#include "oneapi/dnnl/dnnl_version.h"

namespace seqmark {
namespace {

#ifdef __clang__
constexpr char kCompiler[] = __VERSION__;  // "Clang 14.0.6"
#else
constexpr char kCompiler[] = "g++ " __VERSION__;
#endif

}  // namespace

std::vector<std::pair<std::string, std::string>> ProgramFacts(
    const Options& options) {
  utsname system{};
  uname(&system);
  std::vector<std::pair<std::string, std::string>> facts = {
      {"seqmark_schema", absl::StrCat(kSchemaVersion)},
      {"commit", SEQMARK_COMMIT},
      {"dirty", SEQMARK_DIRTY ? "true" : "false"},
      {"command_line", options.command_line},
      {"compiler", kCompiler},
      {"os",
       absl::StrCat(system.sysname, " ", system.release, " ", system.machine)},
      {"onednn_version",
       absl::StrCat(DNNL_VERSION_MAJOR, ".", DNNL_VERSION_MINOR, ".",
                    DNNL_VERSION_PATCH)},
      {"abseil_lts", absl::StrCat(ABSL_LTS_RELEASE_VERSION)},
      {"nlohmann_json", absl::StrCat(NLOHMANN_JSON_VERSION_MAJOR, ".",
                                     NLOHMANN_JSON_VERSION_MINOR)},
      {"seed", absl::StrCat(options.seed)},
      {"noise_target", absl::StrCat(options.noise)},
  };
  if (const auto plant = PlantOfThisBuild(); plant.ok() && *plant)
    facts.emplace_back("planted", (*plant)->ToString());
  return facts;
}

}  // namespace seqmark
