# Finds CUDA, or does without. Sets GRADTAIL_CUDA_FOUND; gradtail_add_cuda(target) adds the CUDA sources.

# A CUDA toolkit that pip installed into the build environment lies in <site-packages>/nvidia/cu<major>.
function(gradtail_use_pypi_cuda)
  if(CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX} OR NOT UNIX OR APPLE)
    return()
  endif()
  execute_process(
    COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/find_pypi_cuda.py"
    OUTPUT_VARIABLE root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT root)
    return()
  endif()
  set(CMAKE_CUDA_COMPILER "${root}/bin/nvcc" CACHE FILEPATH "nvcc from Python wheels")
  set(CUDAToolkit_ROOT "${root}" CACHE PATH "CUDA toolkit from Python wheels")
  # The wheels have lib/ where nvcc looks in lib64/, and no libcudart.so link, which FindCUDAToolkit wants.
  set(CMAKE_CUDA_FLAGS_INIT "-L${root}/lib" PARENT_SCOPE)
  file(GLOB runtime "${root}/lib/libcudart.so.*")
  set(CUDA_CUDART "${runtime}" CACHE FILEPATH "")
  message(STATUS "gradtail: nvcc from Python wheels in ${root}")
endfunction()

set(GRADTAIL_CUDA_FOUND FALSE)
if(NOT GRADTAIL_CUDA STREQUAL "OFF")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # chosen below, once the version of nvcc is known
  endif()
  gradtail_use_pypi_cuda()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit)
    if(CUDAToolkit_FOUND AND TARGET CUDA::cudart_static)
      set(GRADTAIL_CUDA_FOUND TRUE)
    endif()
  endif()
  if(NOT GRADTAIL_CUDA_FOUND AND GRADTAIL_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GRADTAIL_CUDA: expected a working nvcc with cudart_static for ON, got none; "
      "GRADTAIL_CUDA_FROM_PYPI=1 builds with the compiler from Python wheels")
  endif()
endif()

if(GRADTAIL_CUDA_FOUND)
  if(GRADTAIL_CUDA_ARCHS)
    set(GRADTAIL_CUDA_ARCH_LIST "${GRADTAIL_CUDA_ARCHS}")
  elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(GRADTAIL_CUDA_ARCH_LIST 75-real 80-real 86-real 89-real 90-real 100-real 120)
  else()
    set(GRADTAIL_CUDA_ARCH_LIST 75-real 80-real 86-real 89-real 90)
  endif()
  message(STATUS "gradtail: CUDA backend ON (nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${GRADTAIL_CUDA_ARCH_LIST})")
else()
  message(STATUS "gradtail: CUDA backend OFF, CPU only")
endif()

function(gradtail_add_cuda target)
  add_library(gradtail_cuda OBJECT csrc/cuda/kernels.cu csrc/cuda/runtime.cu csrc/cuda/probe.cu)
  set_target_properties(gradtail_cuda PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden
    CUDA_RUNTIME_LIBRARY Static CUDA_ARCHITECTURES "${GRADTAIL_CUDA_ARCH_LIST}")
  # sm_75: machine code for it. compute_75: portable code that the driver compiles for it and anything newer.
  set(names "")
  foreach(arch IN LISTS GRADTAIL_CUDA_ARCH_LIST)
    if(arch MATCHES "^(.+)-real$")
      list(APPEND names "sm_${CMAKE_MATCH_1}")
    elseif(arch MATCHES "^(.+)-virtual$")
      list(APPEND names "compute_${CMAKE_MATCH_1}")
    else()
      list(APPEND names "sm_${arch}" "compute_${arch}")
    endif()
  endforeach()
  list(JOIN names " " names)
  target_compile_definitions(gradtail_cuda PRIVATE "GRADTAIL_CUDA_ARCHITECTURES=\"${names}\"")
  target_compile_options(gradtail_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--threads=2 -Xfatbin=-compress-all -Xcompiler=-Wall,-Wextra>)
  if(GRADTAIL_WERROR)
    set_target_properties(gradtail_cuda PROPERTIES COMPILE_WARNING_AS_ERROR ON)
  endif()
  target_sources(${target} PRIVATE
    csrc/cuda/engine.cpp
    csrc/cuda/engine_plans.cpp
    csrc/cuda/engine_results.cpp
    csrc/cuda/memory.cpp
    csrc/cuda/plan.cpp
    $<TARGET_OBJECTS:gradtail_cuda>)
  target_compile_definitions(${target} PRIVATE GRADTAIL_CUDA=1)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
endfunction()
