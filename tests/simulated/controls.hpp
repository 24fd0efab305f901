// What a test asks of the simulated devices and sets in them, besides what runtime.hpp has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/runtime.hpp"

namespace gradtail::simulated {

using cuda::runtime::Properties;
using cuda::runtime::Status;
using cuda::runtime::Stream;

constexpr int kDevices = 2;

struct Counters {
  std::uint64_t synchronizations;  // calls that wait: for a stream, for an
                                   // event, for the device to release memory
  std::uint64_t launches;          // executed
  std::uint64_t allocations;       // made since the last reset, pinned ones among them
  std::uint64_t live_allocations, live_bytes, live_pinned_bytes;
};
Counters counters();

// Drops what is enqueued, failures, captures and limits; memory, streams and events stay.
void reset();

void set_memory_limit(std::size_t bytes);
void set_properties(const Properties& properties);
std::string damage();  // to a red zone; empty: none

// Execute up to n operations of a stream, fewer where it waits for an event. Returns how many.
std::size_t advance(Stream stream, std::size_t n);
std::size_t pending(Stream stream);
std::string failure();  // of a kernel or a copy; empty: none. Nothing is
                        // executed after one, until reset().

Status begin_capture(Stream stream);
Status end_capture(Stream stream, int* graph);
Status replay(int graph,
              Stream stream);  // enqueues what was captured, with the arguments of then

}  // namespace gradtail::simulated
