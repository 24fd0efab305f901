// Which instruction set the pass runs on.
#pragma once

#include "pass.hpp"

namespace gradtail::cpu {
const Kernels& kernels();
}
