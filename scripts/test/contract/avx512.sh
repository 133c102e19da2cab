#!/usr/bin/env bash
# Runs the core's tests on an emulated processor with AVX-512, for machines without one: as the first program of a Linux
# kernel inside Bochs. Arguments go to `cargo test`, to select test programs:
#     scripts/test/contract/avx512.sh --test matmul --test ops
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

if grep -qw avx512dq /proc/cpuinfo; then
    echo "avx512: this machine has it; its tests have run natively"
    exit
fi
packages bochs bochsbios vgabios isolinux syslinux-common xorriso busybox-static cpio libc6-dev ||
    not_run "avx512: needs Debian's bochs, bochsbios, vgabios, isolinux, syslinux-common, xorriso, busybox-static, cpio"

work=$CARGO_TARGET_DIR/avx512-emulated
rm -rf "$work"
mkdir -p "$work"/{disc/isolinux,root/bin,root/tests}

# Static programs need only the kernel.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
cargo test --locked -p jostle --target x86_64-unknown-linux-gnu --no-run --message-format=json "${@:---test=matmul}" |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4 |
    while read -r program; do strip -o "$work/root/tests/$(basename "$program")" "$program"; done

cp /bin/busybox "$work/root/bin/"
cat >"$work/root/init" <<'END'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /tmp
/bin/busybox mount -t proc proc /proc
result=passed
for program in /tests/*; do "$program" --test-threads=1 || result=failed; done
echo "emulation: $result"
/bin/busybox sleep 1000
END
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >"$work/disc/isolinux/initrd"

(
    cd "$work"
    # The image of Debian's smallest kernel, which is not installed.
    apt-get download -q "$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')"
    dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --wildcards --to-stdout './boot/vmlinuz*' \
        >disc/isolinux/vmlinuz
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 disc/isolinux/
    # Bochs 2.7 reports a wrong size of compacted XSAVE areas, which would make Linux disable AVX.
    # The kernel passes an unknown setting in capitals to init as an environment variable.
    cat >disc/isolinux/isolinux.cfg <<'END'
DEFAULT linux
LABEL linux
  KERNEL vmlinuz
  INITRD initrd
  APPEND console=ttyS0 quiet mitigations=off nokaslr idle=poll clearcpuid=xsavec,xsaves rdinit=/init JOSTLE_INSTRUCTION_SETS=avx512
END
    xorriso -as mkisofs -quiet -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
        -boot-info-table -o disc.iso disc
    cat >bochsrc <<'END'
display_library: rfb, options="timeout=0"
plugin_ctrl: speaker=0, parallel=0, iodebug=0
sound: driver=dummy
cpu: model=corei7_skylake_x, ips=50000000
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
log: bochs.log
clock: sync=none
END
)

cd "$work"
# Debian's Bochs waits for the debugger command c (continue); its input must stay open.
mkfifo commands
timeout "${TIMEOUT:-1800}" bochs -q -f bochsrc <commands >bochs.txt 2>&1 &
bochs=$!
exec 3>commands
echo c >&3
while kill -0 $bochs 2>/dev/null && ! grep -qs '^emulation:' serial.txt; do sleep 2; done
kill $bochs 2>/dev/null || true
exec 3>&-
sed -n '/^running/,$p' serial.txt
grep -q '^emulation: passed' serial.txt
