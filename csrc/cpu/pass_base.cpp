#define GRADTAIL_ISA base
#include "pass.inl"
