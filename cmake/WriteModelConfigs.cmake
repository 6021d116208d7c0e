# SPDX-License-Identifier: Apache-2.0
#
# cmake -DOUTPUT=<file.cc> -DCONFIGS=<list of .json> -P WriteModelConfigs.cmake
set(entries "")
foreach(config IN LISTS CONFIGS)
  get_filename_component(name ${config} NAME_WLE)
  file(READ ${config} text)
  string(APPEND entries "      {\"${name}\", R\"json(${text})json\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Written by cmake/WriteModelConfigs.cmake from models/configs.
#include \"models/config.h\"

namespace seqmark {

const std::vector<std::pair<std::string, std::string>>& EmbeddedConfigs() {
  static const auto* const configs =
    new std::vector<std::pair<std::string, std::string>>{
${entries}    };
  return *configs;
}

}  // namespace seqmark
")
