// What a translated kernel sees of the Metal Standard Library and of MLX's utilities.
#pragma once

// A kernel's text has attributes and pragmas that mean nothing to a C++ compiler.
#pragma GCC diagnostic ignored "-Wattributes"
#pragma GCC diagnostic ignored "-Wunknown-pragmas"

// The least version that MLX asks for, which has bfloat; nothing that came later is here.
#define __METAL__ 1
#define __METAL_VERSION__ 310
#define __HAVE_BFLOAT__ 1

#include "types.h"
#include "vector.h"
#include "math.h"
#include "relational.h"
#include "integer.h"
#include "geometric.h"
#include "packed.h"
#include "pack.h"
#include "matrix.h"
#include "array.h"
#include "sync.h"
#include "simd.h"
#include "simdgroup_matrix.h"
#include "atomic.h"
#include "complex.h"
#include "mlx_utils.h"

// Memory is one here, and a kernel is a function. Last, because C++ headers use these words. (The translator takes
// `threadgroup` away itself: such a variable is shared.)
#define device
#define constant
#define thread
#define kernel
#define vertex
#define fragment
#define ray_data
#define object_data

// Every function is inlined into the kernel (Metal knows no recursion): where a structure that is trivial to copy goes
// into a call or comes out of one, GCC puts no hook to the access.
#define noinline unused
#define __noinline__ unused

using namespace metal;
