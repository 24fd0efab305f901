#define GRADTAIL_ISA avx512
#include "pass.inl"
