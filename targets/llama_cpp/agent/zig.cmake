# Cross-compiling with the C and C++ compiler in the PyPI distribution ziglang, which brings musl and
# libc++: static programs that need nothing of the device's own C library.
# ZIG is the program, ZIG_TARGET a triple as aarch64-linux-musl, ZIG_CPU what -mcpu takes.
set(CMAKE_SYSTEM_NAME Linux)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${ZIG_TARGET}")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG ZIG_TARGET ZIG_CPU)

set(CMAKE_C_COMPILER "${ZIG};cc")
set(CMAKE_CXX_COMPILER "${ZIG};c++")
set(CMAKE_C_FLAGS_INIT "-target ${ZIG_TARGET} -mcpu=${ZIG_CPU}")
set(CMAKE_CXX_FLAGS_INIT "-target ${ZIG_TARGET} -mcpu=${ZIG_CPU}")
foreach(language C CXX)
  set(CMAKE_${language}_ARCHIVE_CREATE "\"${ZIG}\" ar qc <TARGET> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_APPEND "\"${ZIG}\" ar q <TARGET> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_FINISH "\"${ZIG}\" ranlib <TARGET>")
endforeach()
