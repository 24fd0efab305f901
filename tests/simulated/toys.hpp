// Small kernels that the tests of the simulated device run.
#pragma once

#include <cstddef>
#include <string>

namespace gradtail::simulated {

// Launches the toy of that name; false if there is none. In and out are arrays of 32-bit words.
bool launch_toy(const std::string& name, unsigned grid, unsigned block, std::size_t shared_bytes, void* stream,
                const unsigned* in, unsigned* out, int n);

}  // namespace gradtail::simulated
