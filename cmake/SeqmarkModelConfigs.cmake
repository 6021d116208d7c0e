# SPDX-License-Identifier: Apache-2.0
#
# seqmark_embed_model_configs(<variable>): a generated source that holds every
# models/configs/*.json as (name, text), for EmbeddedConfigs() of
# models/config.h. Written again at build time where a file changed.
function(seqmark_embed_model_configs variable)
  file(GLOB configs CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/models/configs/*.json)
  set(source ${CMAKE_BINARY_DIR}/generated/model_configs.cc)
  set(writer ${CMAKE_SOURCE_DIR}/cmake/WriteModelConfigs.cmake)
  add_custom_command(OUTPUT ${source}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${source} "-DCONFIGS=${configs}" -P ${writer}
    DEPENDS ${configs} ${writer} VERBATIM)
  set(${variable} ${source} PARENT_SCOPE)
endfunction()
