// SPDX-License-Identifier: Apache-2.0
#include "fixtures/plant.h"

namespace seqmark {

const char* PlantedText() { return "steady/alpha:cpu:1.03"; }

}  // namespace seqmark
