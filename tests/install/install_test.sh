#!/bin/bash
# Installs Gradweave, moves the folder, and builds and runs the programs of docs/deploy.md against
# it with CMake and with pkg-config. Does the same with what the .deb and the .tar.xz hold.
set -u
files=$PWD
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
for program in cmake pkg-config dpkg-deb dpkg-shlibdeps; do
  if ! command -v $program > /dev/null; then
    echo "SKIPPED: $program is missing; tools/install cmake pkg-config dpkg-dev installs it"
    exit 0
  fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
version=$(cat "$files/VERSION")

# The code of the page.
extract() { awk -v start="^\`\`\`$1\$" '$0 ~ start {code = 1; next} /^```/ {code = 0} code' "$files/docs/$2.md"; }
mkdir page
extract cmake deploy > page/CMakeLists.txt
extract cpp deploy > page/learn.cc
extract c deploy > page/multiply.c

# check_learn <program>
check_learn() {
  rm -f products.gw
  "$1" || fail "learn"
  [[ -e products.gw ]] || fail "learn saves nothing"
}

# check_multiply <command>: the model has learned the product of -1 and 1.
check_multiply() {
  "$@" > output.txt || fail "multiply"
  grep -qE '^product -(0\.9|1\.0)[0-9], slope ' output.txt || fail "multiply: $(cat output.txt)"
}

# build_with_cmake <prefix> <folder> <targets...>
build_with_cmake() {
  local prefix=$1 folder=$2
  shift 2
  cmake -S page -B "$folder" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release > cmake.txt 2>&1 &&
    cmake --build "$folder" --target "$@" >> cmake.txt 2>&1 || fail "cmake with $prefix: $(tail -n 20 cmake.txt)"
  for target in "$@"; do "check_$target" "$folder/$target"; done
}

# build_with_pkg_config <prefix> <folder>
build_with_pkg_config() {
  mkdir "$2"
  export PKG_CONFIG_PATH=$1/lib/pkgconfig
  [[ $(pkg-config --modversion gradweave) == "$version" ]] || fail "pkg-config: another version"
  # shellcheck disable=SC2046
  g++ -std=c++20 page/learn.cc $(pkg-config --cflags --libs gradweave) -o "$2/learn" || fail "learn.cc with pkg-config"
  # shellcheck disable=SC2046
  gcc -std=c11 page/multiply.c $(pkg-config --cflags --libs gradweave-c) -Wl,-rpath,"$1/lib" -o "$2/multiply" ||
    fail "multiply.c with pkg-config"
  check_learn "$2/learn"
  check_multiply "$2/multiply"
}

# The folder may be moved.
(cd "$files" && BUILD_WORKING_DIRECTORY=$work ./install --prefix=first) > install.txt || fail "install"
grep -qF "installed Gradweave in $work/first" install.txt || fail "install: $(cat install.txt)"
mv first moved
grep -rqF "$work" moved/lib/cmake moved/lib/pkgconfig && fail "the installed files name the folder"
build_with_cmake "$work/moved" cmake_build learn multiply
build_with_pkg_config "$work/moved" pkg_config_build
# The project of the tutorial: the program of page 1, and one in C that runs its model.
mkdir tutorial
extract "cmake CMakeLists.txt" tutorial/5_deployment > tutorial/CMakeLists.txt
extract "c classify.c" tutorial/5_deployment > tutorial/classify.c
extract cpp tutorial/1_first_model > tutorial/learn.cc
cmake -S tutorial -B tutorial/build -DCMAKE_PREFIX_PATH="$work/moved" > cmake.txt 2>&1 &&
  cmake --build tutorial/build >> cmake.txt 2>&1 || fail "the tutorial's project: $(tail -n 20 cmake.txt)"
tutorial/build/learn > output.txt || fail "the tutorial's learn: $(cat output.txt)"
tutorial/build/classify > output.txt
diff <(extract text tutorial/5_deployment) output.txt || fail "the tutorial's classify: $(cat output.txt)"

# An installation that a full disk or a file in the way stops leaves nothing behind.
mkdir full
(cd "$files" && ulimit -f 1000 && BUILD_WORKING_DIRECTORY=$work ./install --prefix=full) > install.txt 2>&1
[[ $? == 1 ]] && grep -q 'install: .*/full: the files cannot be written' install.txt ||
  fail "a full disk: $(cat install.txt)"
(cd "$files" && ulimit -f 1000 && BUILD_WORKING_DIRECTORY=$work ./package --output_dir=full) > package.txt 2>&1
[[ $? == 1 && $(cat package.txt) == "package: "* ]] || fail "package on a full disk: $(cat package.txt)"
[[ -z $(ls -A full) ]] || fail "a full disk leaves $(ls -A full)"
(cd "$files" && BUILD_WORKING_DIRECTORY=$work ./install --prefix=install.txt/in) > output.txt 2>&1
[[ $? == 1 && $(wc -l < output.txt) == 1 ]] || fail "a file in the way: $(cat output.txt)"
for arguments in "" "--prefix=" "first"; do
  (cd "$files" && BUILD_WORKING_DIRECTORY=$work ./install $arguments) > install.txt 2>&1
  [[ $? == 2 && $(cat install.txt) == usage:* ]] || fail "install $arguments: $(cat install.txt)"
done

# The project of `gradweave new` finds the library from which the command comes.
moved/bin/gradweave new first > new.txt && cmake -S first -B first/build > cmake.txt 2>&1 &&
  cmake --build first/build >> cmake.txt 2>&1 || fail "gradweave new: $(cat new.txt; tail -n 20 cmake.txt)"
first/build/first first.gw > output.txt || fail "the program of gradweave new: $(cat output.txt)"
moved/bin/gradweave inspect first.gw > output.txt && grep -qF 'prediction  float32[batch,1]' output.txt ||
  fail "the model of gradweave new: $(cat output.txt)"

# A project in C alone, which another version does not serve.
mkdir c_alone
cp "$files/examples/c/predict.c" "$files/examples/c/fashion_mnist.h" c_alone
cat > c_alone/CMakeLists.txt << 'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(c_alone LANGUAGES C)
find_package(Gradweave ${WANTED} REQUIRED COMPONENTS c)
find_package(ZLIB REQUIRED)
add_executable(predict predict.c)
target_link_libraries(predict gradweave::c ZLIB::ZLIB)
CMAKE
cmake -S c_alone -B c_build -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_DISABLE_FIND_PACKAGE_absl=ON -DWANTED="$version" > cmake.txt 2>&1 &&
  cmake --build c_build >> cmake.txt 2>&1 || fail "a project in C: $(tail -n 20 cmake.txt)"
c_build/predict none.gw 0 > output.txt 2>&1
grep -qF 'none.gw: the file cannot be opened' output.txt || fail "the program in C: $(cat output.txt)"
cmake -S c_alone -B c_build2 -DCMAKE_PREFIX_PATH="$work/moved" -DWANTED=99 > cmake.txt 2>&1 && fail "version 99 is found"

# A program with an op and a kernel of its own: that of examples/outside.
mkdir own_op
cp "$files/examples/outside/swish.cc" own_op
cat > own_op/CMakeLists.txt << 'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(own_op LANGUAGES CXX)
find_package(Gradweave REQUIRED COMPONENTS gradweave)
add_executable(swish swish.cc)
target_link_libraries(swish gradweave::gradweave)
CMAKE
cmake -S own_op -B own_op/build -DCMAKE_PREFIX_PATH="$work/moved" > cmake.txt 2>&1 &&
  cmake --build own_op/build >> cmake.txt 2>&1 || fail "a program with its own op: $(tail -n 20 cmake.txt)"
# Swish(2) is 2 / (1 + e^-2), and its slope at 0 is a half.
own_op/build/swish > output.txt && grep -qF '1.7615' output.txt && grep -qF '0.5' output.txt ||
  fail "the program with its own op: $(cat output.txt)"

# A program of several processes, and a component that does not exist.
mkdir processes
cat > processes/CMakeLists.txt << 'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(processes LANGUAGES CXX)
find_package(Gradweave REQUIRED COMPONENTS ${WANTED})
add_executable(count count.cc)
target_link_libraries(count gradweave::distributed)
CMAKE
cat > processes/count.cc << 'CPP'
#include <cstdio>

#include "gradweave/runtime/distributed/group.h"

int main(int argc, char** argv) {
  const auto group = gradweave::distributed::Init(&argc, &argv);
  if (group.ok()) std::printf("%d of %d\n", (*group)->process(), (*group)->processes());
  return group.ok() ? 0 : 1;
}
CPP
cmake -S processes -B count_build -DCMAKE_PREFIX_PATH="$work/moved" -DWANTED=distributed > cmake.txt 2>&1 &&
  cmake --build count_build >> cmake.txt 2>&1 || fail "gradweave::distributed: $(tail -n 20 cmake.txt)"
[[ $(count_build/count) == "0 of 1" ]] || fail "a program of several processes"
cmake -S processes -B count_build2 -DCMAKE_PREFIX_PATH="$work/moved" -DWANTED=opengl > cmake.txt 2>&1
grep -qF 'Gradweave has no component opengl' cmake.txt || fail "a component that does not exist: $(cat cmake.txt)"

# Packages.
mkdir packages
(cd "$files" && BUILD_WORKING_DIRECTORY=$work ./package --output_dir=packages) > package.txt 2>&1 ||
  fail "package: $(cat package.txt)"
[[ $(wc -l < package.txt) == 2 ]] || fail "package: $(cat package.txt)"
mkdir -p machine/opt
tar -xf packages/gradweave-"$version"-*.tar.xz -C machine/opt || fail "tar"
mv machine/opt/gradweave-* machine/opt/gradweave
mv machine/opt/gradweave/lib/gradweave bundled
diff -r moved machine/opt/gradweave || fail "the .tar.xz differs from the installed folder"
mv bundled machine/opt/gradweave/lib/gradweave

# The .tar.xz needs glibc alone.
glibc='/(ld-linux[a-z0-9_.-]*|lib(c|dl|m|mvec|pthread|rt))\.so\.[0-9]+$'
for file in bin/gradweave lib/libgradweave.so; do
  ldd "machine/opt/gradweave/$file" > ldd.txt || fail "ldd $file"
  awk '/=> \// {print $3} $1 ~ /^\// {print $1}' ldd.txt | grep -v "^$work/machine/" > outside.txt
  outside=$(grep -vE "$glibc" outside.txt)
  [[ -z $outside && -s outside.txt ]] || fail "$file of the .tar.xz needs $outside"
  ! grep "not found" ldd.txt || fail "$file of the .tar.xz needs more"
  while read -r library; do cp --parents -L "$library" machine; done < outside.txt
done
# So it runs on a machine without any other library.
enter() {
  if [[ $EUID == 0 ]]; then chroot machine "$@"; else unshare --user --map-root-user chroot machine "$@"; fi
}
gcc -std=c11 page/multiply.c -Imachine/opt/gradweave/include -Lmachine/opt/gradweave/lib -lgradweave \
  -Wl,-rpath,/opt/gradweave/lib -o machine/multiply || fail "multiply.c with the .tar.xz"
mkdir -p machine/bin machine/proc/self
cp -L /bin/true machine/bin
ln -s /opt/gradweave/bin/gradweave machine/proc/self/exe # The loader finds the folder of the program through it.
cp products.gw machine
if enter /bin/true 2> enter.txt; then
  enter /opt/gradweave/bin/gradweave inspect /products.gw > output.txt && grep -qF 'product' output.txt ||
    fail "the command on a machine with glibc alone: $(cat output.txt)"
  check_multiply enter /multiply
else
  echo "no other root folder here, so nothing runs with glibc alone: $(cat enter.txt)"
fi
deb=packages/gradweave_${version}_$(dpkg --print-architecture).deb
dpkg-deb --field "$deb" Depends > depends.txt
for package in libc6 libstdc++6 libopenblas0; do
  grep -qF "$package" depends.txt || fail "the .deb does not depend on $package: $(cat depends.txt)"
done
dpkg -x "$deb" root || fail "dpkg -x"
for folder in bin include lib share/doc/gradweave/licenses; do
  diff -r "moved/$folder" "root/usr/$folder" || fail "the .deb differs from the installed folder"
done
for page in moved/share/man/man1/*; do
  gzip --decompress --stdout "root/usr/${page#moved/}.gz" | cmp - "$page" || fail "$page in the .deb"
done
[[ -s moved/share/man/man1/gradweave.1 && -s moved/share/man/man1/gradweave-run.1 ]] || fail "manual pages"
if command -v lintian > /dev/null; then
  lintian --allow-root "$deb" > lintian.txt 2>&1 && [[ ! -s lintian.txt ]] || fail "lintian: $(cat lintian.txt)"
else
  echo "lintian is missing, so the .deb is not checked by it; tools/install lintian installs it"
fi
# The files are the same, so the archive works too.
build_with_cmake "$work/root/usr" deb_build multiply

# Licences, and no file of the inside of the engine.
[[ -s moved/share/doc/gradweave/copyright && -s moved/share/doc/gradweave/licenses/abseil ]] || fail "licences"
[[ -e moved/include/gradweave/gradweave.h && ! -e moved/include/gradweave/runtime/plan/plan.h ]] || fail "headers"
bytes=$(stat --dereference --format=%s moved/lib/libgradweave.so)
echo "libgradweave.so has $bytes bytes"
# The limit is that of a library for the CPU. Kernels for GPUs lie in a section of their own.
if readelf --section-headers --wide moved/lib/libgradweave.so | grep '\.nv_fatbin' > /dev/null; then limit=32; else limit=12; fi
((bytes < limit << 20)) || fail "libgradweave.so has more than $limit MiB"

[[ $failures == 0 ]]
