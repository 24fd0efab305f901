#define GRADTAIL_ISA avx2
#include "pass.inl"
