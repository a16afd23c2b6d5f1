// Threadgroup variables: the translator turns `threadgroup float x[8];` into a reference to storage that the threads of
// a threadgroup share.
#pragma once

#include "emulator.h"

namespace metal {

// `Key` is a type that no other variable has: that of a lambda at the declaration.
template <class V, class Key>
inline V& nf_threadgroup(const char* name, Key, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  static const char key = 0;
  return *static_cast<V*>(nf_shared(&key, name, sizeof(V), file, line));
}

}  // namespace metal
