# SPDX-License-Identifier: Apache-2.0
# At each build, writes build/generated/git_version.h if the commit changed.
add_custom_target(seqmark_git_version
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_SOURCE_DIR} -DOUT=${CMAKE_BINARY_DIR}/generated/git_version.h
          -P ${CMAKE_SOURCE_DIR}/cmake/WriteGitVersion.cmake
  BYPRODUCTS ${CMAKE_BINARY_DIR}/generated/git_version.h)
