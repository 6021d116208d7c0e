// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace seqmark {

inline constexpr int kArrivalsOfWarp = 1;
inline bool ArrivesForWarp(int lane) { return lane == 0; }

}  // namespace seqmark
