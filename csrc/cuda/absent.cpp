// Stands in for the CUDA backend in a build without CUDA.

#include "../ops.hpp"

namespace gradtail::cuda {

bool built() { return false; }
const char* architectures() { return ""; }
Probe probe() { return {}; }

}  // namespace gradtail::cuda
