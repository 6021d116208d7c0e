# SPDX-License-Identifier: Apache-2.0
# Finds the CUDA compiler and libraries, or leaves CUDA out.
set(SEQMARK_HAVE_CUDA FALSE)
if(SEQMARK_CUDA STREQUAL "off")
  return()
endif()
# tools/install puts what a machine lacks into .deps/: the toolkit, cuDNN, cudnn-frontend.
set(deps ${CMAKE_SOURCE_DIR}/.deps)
find_program(nvcc_program nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH ${deps}/cuda PATH_SUFFIXES bin PATHS /usr/local/cuda/bin)
if(NOT nvcc_program)
  if(SEQMARK_CUDA STREQUAL "on")
    message(FATAL_ERROR "SEQMARK_CUDA=on but there is no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda/bin")
  endif()
  message(STATUS "No nvcc: building the CPU providers only")
  return()
endif()
set(CMAKE_CUDA_COMPILER ${nvcc_program})
set(CMAKE_CUDA_ARCHITECTURES ${SEQMARK_CUDA_ARCHITECTURES})
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # the one that the vendor libraries use
# CMake 3.25 sets a property of this library without looking; CUDA 13 has none.
if(NOT TARGET CUDA::nvToolsExt)
  add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
endif()
find_package(CUDAToolkit 12.6 REQUIRED)

find_path(SEQMARK_CUDNN_FRONTEND_DIR cudnn_frontend.h
  PATHS ${deps}/include REQUIRED
  DOC "Folder of cudnn_frontend.h (pip package nvidia-cudnn-frontend)")
find_path(SEQMARK_CUDNN_INCLUDE cudnn.h HINTS ${deps}/cudnn/include ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
find_library(SEQMARK_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9
  HINTS ${deps}/cudnn/lib ${CUDAToolkit_LIBRARY_DIR} REQUIRED)

add_library(seqmark_cuda INTERFACE)
target_link_libraries(seqmark_cuda INTERFACE CUDA::cudart)
target_compile_definitions(seqmark_cuda INTERFACE SEQMARK_HAVE_CUDA=1)
target_compile_options(seqmark_cuda INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-lineinfo;--use_fast_math;-Xcudafe=--diag_suppress=20012>)
add_library(seqmark_cublaslt INTERFACE)
target_link_libraries(seqmark_cublaslt INTERFACE seqmark_cuda CUDA::cublasLt)
add_library(seqmark_cudnn INTERFACE)
target_include_directories(seqmark_cudnn SYSTEM INTERFACE ${SEQMARK_CUDNN_FRONTEND_DIR} ${SEQMARK_CUDNN_INCLUDE})
target_compile_definitions(seqmark_cudnn INTERFACE CUDNN_FRONTEND_SKIP_JSON_LIB)
# The frontend compiles some engines of its own at run time.
target_link_libraries(seqmark_cudnn INTERFACE seqmark_cuda ${SEQMARK_CUDNN_LIBRARY} CUDA::nvrtc)
# Its header only: the library is opened at run time, where there is one.
find_path(SEQMARK_CUPTI_INCLUDE cupti_range_profiler.h
  HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_LIBRARY_ROOT}/extras/CUPTI/include
  DOC "Folder of cupti_range_profiler.h; without it --verify_bytes counts nothing on GPUs")
add_library(seqmark_cupti INTERFACE)
target_link_libraries(seqmark_cupti INTERFACE seqmark_cuda)
if(SEQMARK_CUPTI_INCLUDE)
  target_include_directories(seqmark_cupti SYSTEM INTERFACE ${SEQMARK_CUPTI_INCLUDE})
endif()
set(SEQMARK_HAVE_CUDA TRUE)
message(STATUS "CUDA ${CUDAToolkit_VERSION} for ${SEQMARK_CUDA_ARCHITECTURES}")
