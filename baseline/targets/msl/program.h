// What a translated kernel includes. Its text stands in nf_c::nf_program, beside the Metal library: its own names hide
// the C library's, which are global, and overload Metal's, as they do where both are global.
#pragma once

// All that the headers below include from elsewhere, before a namespace is open.
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>

#include "emulator.h"

namespace nf_c {

// The C library's functions that Metal lacks are not found, unless the kernel brings one of that name.
#define NF_ABSENT(name) void name(...) = delete;
#define NF_ABSENT2(name) NF_ABSENT(name) NF_ABSENT(name##f)
NF_ABSENT2(cbrt) NF_ABSENT2(erf) NF_ABSENT2(erfc) NF_ABSENT2(expm1) NF_ABSENT2(hypot) NF_ABSENT2(lgamma)
NF_ABSENT2(tgamma) NF_ABSENT2(logb) NF_ABSENT2(lrint) NF_ABSENT2(lround) NF_ABSENT2(llrint) NF_ABSENT2(llround)
NF_ABSENT2(nearbyint) NF_ABSENT2(remainder) NF_ABSENT2(remquo) NF_ABSENT2(scalbn) NF_ABSENT2(scalbln)
NF_ABSENT2(j0) NF_ABSENT2(j1) NF_ABSENT2(jn) NF_ABSENT2(y0) NF_ABSENT2(y1) NF_ABSENT2(yn) NF_ABSENT2(gamma)
NF_ABSENT(acosf) NF_ABSENT(acoshf) NF_ABSENT(asinf) NF_ABSENT(asinhf) NF_ABSENT(atanf) NF_ABSENT(atan2f)
NF_ABSENT(atanhf) NF_ABSENT(ceilf) NF_ABSENT(copysignf) NF_ABSENT(cosf) NF_ABSENT(coshf) NF_ABSENT(expf)
NF_ABSENT(exp2f) NF_ABSENT(fabsf) NF_ABSENT(fdimf) NF_ABSENT(floorf) NF_ABSENT(fmaf) NF_ABSENT(fmaxf)
NF_ABSENT(fminf) NF_ABSENT(fmodf) NF_ABSENT(frexpf) NF_ABSENT(ilogbf) NF_ABSENT(ldexpf) NF_ABSENT(logf)
NF_ABSENT(log10f) NF_ABSENT(log1pf) NF_ABSENT(log2f) NF_ABSENT(modff) NF_ABSENT(nextafterf) NF_ABSENT(powf)
NF_ABSENT(rintf) NF_ABSENT(roundf) NF_ABSENT(sinf) NF_ABSENT(sinhf) NF_ABSENT(sqrtf) NF_ABSENT(tanf)
NF_ABSENT(tanhf) NF_ABSENT(truncf)
NF_ABSENT(abort) NF_ABSENT(calloc) NF_ABSENT(exit) NF_ABSENT(free) NF_ABSENT(index) NF_ABSENT(malloc)
NF_ABSENT(memcmp) NF_ABSENT(memcpy) NF_ABSENT(memmove) NF_ABSENT(memset) NF_ABSENT(printf) NF_ABSENT(qsort)
NF_ABSENT(rand) NF_ABSENT(random) NF_ABSENT(realloc) NF_ABSENT(srand) NF_ABSENT(strcmp) NF_ABSENT(strlen)
#undef NF_ABSENT2
#undef NF_ABSENT

namespace nf_program {

#include "shared.h"

#include "metal_stdlib.h"

}  // namespace nf_program
}  // namespace nf_c

using namespace nf_c::nf_program;  // for `::metal::` and the like
