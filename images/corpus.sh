# shellcheck shell=bash
# The test images: image NAME FORMAT SIZE OPTIONS STEP..., as images/make explains. The name says what is in it.

clusters=(512 1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1M 2M)

# --- qcow2: every cluster size in both versions, with data, zeros, a discarded part and loose ends
mixed=('write 0 1M' 'write 3000k 70k' 'write 4097k 512' 'write -z 5M 1M' 'write -z 3010k 8k' 'discard 256k 256k' 'write 8191k 1k')
for cluster in "${clusters[@]}"; do
    image "v2-$cluster.qcow2" qcow2 8M "compat=0.10,cluster_size=$cluster" "${mixed[@]}"
    image "v3-$cluster.qcow2" qcow2 8M "compat=1.1,cluster_size=$cluster" "${mixed[@]}"
done

# --- every refcount width
for width in 1 2 4 8 16 32 64; do
    image "refcount-$width.qcow2" qcow2 1G "refcount_bits=$width" 'write 100M 3M' 'write 900M 64k'
    image "refcount-$width-512.qcow2" qcow2 6M "refcount_bits=$width,cluster_size=512" 'write 1M 300k' 'write -z 2M 100k'
    image "refcount-$width-full.qcow2" qcow2 3M "refcount_bits=$width,cluster_size=4k" 'write 0 3M'
done

# --- extended L2 entries: parts of clusters
for cluster in 16k 32k 64k 128k 256k 512k 1M 2M; do
    image "subclusters-$cluster.qcow2" qcow2 64M "extended_l2=on,cluster_size=$cluster" \
        'write 0 512' 'write 1M 4k' 'write 2047k 2k' 'write 5M 3M' 'write 33M 200k'
    image "subclusters-$cluster-zero.qcow2" qcow2 64M "extended_l2=on,cluster_size=$cluster" \
        'write 0 6M' 'write -z 1M 64k' 'write -z -u 2M 2M' 'discard 5M 64k' 'write -z 40M 1k' 'discard 0 512k'
done
image subclusters-metadata.qcow2 qcow2 16M extended_l2=on,preallocation=metadata 'write 1M 100k'
image subclusters-falloc.qcow2 qcow2 16M extended_l2=on,preallocation=falloc
image subclusters-full.qcow2 qcow2 8M extended_l2=on,preallocation=full 'write -z 1M 2M'
image subclusters-compressed.qcow2 qcow2 8M extended_l2=on 'write -c 0 64k' 'write 128k 4k' 'write -c 1M 256k'

# --- compressed clusters
for kind in zlib zstd; do
    for cluster in 512 4k 16k 64k 256k 2M; do
        image "$kind-$cluster.qcow2" qcow2 16M "compression_type=$kind,cluster_size=$cluster" \
            "write -c 0 $cluster" "write -c 4M 2M" "write -c -P 7 10M 2M" 'write 5M 100k' 'write 8M 300k'
    done
    image "$kind-converted.qcow2" qcow2 32M '' 'write 1M 9M' 'write 20M 64k' "convert -c -o compression_type=$kind"
    image "$kind-converted-4k.qcow2" qcow2 32M '' 'write 1M 9M' "convert -c -o compression_type=$kind,cluster_size=4k"
    image "$kind-unaligned.qcow2" qcow2 1000000 "compression_type=$kind" 'write -c 983040 17408' 'write 0 1k'
done
image zlib-v2.qcow2 qcow2 16M compat=0.10 'write -c 0 1M' 'write 512k 64k' 'discard 128k 128k'

# --- zero clusters
image zero-plain.qcow2 qcow2 64M '' 'write -z 1M 8M'
image zero-discarded.qcow2 qcow2 64M '' 'write -z -u 1M 8M'
image zero-over-data.qcow2 qcow2 64M '' 'write 0 16M' 'write -z 1M 8M'
image zero-over-data-discarded.qcow2 qcow2 64M '' 'write 0 16M' 'write -z -u 1M 8M'
image zero-over-preallocated.qcow2 qcow2 16M preallocation=metadata 'write -z 1M 8M'
image zero-over-falloc.qcow2 qcow2 16M preallocation=falloc 'write -z 1M 8M' 'write 12M 1M'
image zero-over-full.qcow2 qcow2 16M preallocation=full 'write -z 1M 8M'
image zero-under-data.qcow2 qcow2 64M '' 'write -z 0 16M' 'write 3M 100k'
image zero-over-compressed.qcow2 qcow2 16M '' 'write -c 0 4M' 'write -z 1M 1M' 'write -z -u 2M 1M'
image zero-throughout.qcow2 qcow2 1G '' 'write -z 0 1G'
image zero-v2.qcow2 qcow2 64M compat=0.10 'write 0 4M' 'write -z 1M 1M' 'write -z 8M 1M'
image zero-bytes-written.qcow2 qcow2 64M '' 'write -P 0 1M 8M'

# --- discarded clusters
image discarded.qcow2 qcow2 64M '' 'write 0 32M' 'discard 1M 8M'
image discarded-v2.qcow2 qcow2 64M compat=0.10 'write 0 32M' 'discard 1M 8M'
image discarded-all.qcow2 qcow2 64M '' 'write 0 64M' 'discard 0 64M'
image discarded-and-written.qcow2 qcow2 64M '' 'write 0 32M' 'discard 1M 8M' 'write 2M 100k'
image discarded-unaligned.qcow2 qcow2 64M '' 'write 0 32M' 'discard 1025k 7M'
image discarded-preallocated.qcow2 qcow2 16M preallocation=metadata 'write 0 4M' 'discard 1M 8M'
image discarded-full.qcow2 qcow2 16M preallocation=full 'discard 1M 8M'

# --- preallocation, and what copies make of it
for mode in off metadata falloc full; do
    for cluster in 4k 64k 2M; do
        image "preallocation-$mode-v2-$cluster.qcow2" qcow2 8M "compat=0.10,cluster_size=$cluster,preallocation=$mode"
        image "preallocation-$mode-$cluster.qcow2" qcow2 8M "cluster_size=$cluster,preallocation=$mode" 'write 1M 1M'
    done
done
for sparse in always never; do
    image "metadata-copied-$sparse.qcow2" qcow2 32M preallocation=metadata "copy $sparse"
    image "metadata-written-copied-$sparse.qcow2" qcow2 32M preallocation=metadata 'write 3M 4M' "copy $sparse"
    image "full-copied-$sparse.qcow2" qcow2 8M preallocation=full 'write 3M 1M' "copy $sparse"
    image "data-copied-$sparse.qcow2" qcow2 32M '' 'write -P 0 3M 4M' 'write 20M 1M' "copy $sparse"
done
image data-punched.qcow2 qcow2 8M '' 'write 0 4M' 'hole 1M 2M'
image metadata-extended.qcow2 qcow2 8M preallocation=metadata 'length 32M'

# --- virtual sizes
for size in 0 1 511 512 513 65535 65536 65537 1048577 3221225473; do
    image "size-$size.qcow2" qcow2 "$size" ''
    image "size-$size-v2.qcow2" qcow2 "$size" compat=0.10,cluster_size=1k
done
image size-1025k-to-the-end.qcow2 qcow2 1025k '' 'write 0 1025k'
image size-7000k-4k-to-the-end.qcow2 qcow2 7167232 cluster_size=4k 'write 6M 1k' 'write 7167000 232'
image size-1T.qcow2 qcow2 1T '' 'write 0 64k' 'write 500G 1M' 'write 1023G 3M'
image size-63T.qcow2 qcow2 63T '' 'write 62T 3M'
image size-300T-256k.qcow2 qcow2 300T cluster_size=256k 'write 200T 64k'
image size-8P-2M.qcow2 qcow2 8P cluster_size=2M 'write 7P 4k'
image size-128G-512.qcow2 qcow2 128G cluster_size=512 'write 64G 513'
image size-8T-4k.qcow2 qcow2 8T cluster_size=4k 'write 8191G 1k'
image grown.qcow2 qcow2 1M '' 'write 0 1M' 'resize 1G' 'write 1023M 1M'
image shrunk.qcow2 qcow2 1G '' 'write 0 1M' 'write 512M 1M' 'resize 100M'

# --- lazy refcounts, images that were not closed
image lazy.qcow2 qcow2 64M lazy_refcounts=on 'write 1M 3M'
image lazy-4k.qcow2 qcow2 64M lazy_refcounts=on,cluster_size=4k 'write 1M 3M' 'discard 2M 1M'
image lazy-dirty.qcow2 qcow2 64M lazy_refcounts=on 'write 1M 3M' flush crash
image lazy-dirty-64.qcow2 qcow2 64M lazy_refcounts=on,refcount_bits=64 'write 1M 3M' 'write 60M 64k' flush crash

# --- internal snapshots
image snapshot.qcow2 qcow2 64M '' 'write 0 2M' 'snapshot one' 'write 1M 4M'
image snapshot-v2.qcow2 qcow2 64M compat=0.10 'write 0 2M' 'snapshot one' 'write 1M 4M'
image snapshots.qcow2 qcow2 64M '' 'write 0 2M' 'snapshot one' 'write 4M 1M' 'snapshot two' 'snapshot three' 'discard 0 64M'
image snapshot-dropped.qcow2 qcow2 64M '' 'write 0 2M' 'snapshot one' 'write 1M 4M' 'drop one'
image snapshot-grown.qcow2 qcow2 16M '' 'write 0 2M' 'snapshot one' 'resize 64M' 'write 60M 1M'
image snapshot-512.qcow2 qcow2 4M cluster_size=512,refcount_bits=64 'write 0 2M' 'snapshot one' 'write 1M 1M'
image snapshot-compressed.qcow2 qcow2 64M '' 'write -c 0 2M' 'snapshot one' 'write 1M 4M'
image snapshot-subclusters.qcow2 qcow2 64M extended_l2=on 'write 0 1k' 'snapshot one' 'write 4k 1k'

# --- dirty bitmaps
for granularity in 512 4k 64k 1M 64M 2G; do
    image "bitmap-$granularity.qcow2" qcow2 256M '' "bitmap one -g $granularity" 'write 1M 1M'
done
image bitmaps.qcow2 qcow2 10G '' 'bitmap one' 'bitmap two -g 512' 'bitmap three --disable' 'write 1M 1M'
image bitmaps-512.qcow2 qcow2 1M cluster_size=512 'bitmap one' 'bitmap two -g 1k'
image bitmaps-2M.qcow2 qcow2 1T cluster_size=2M 'bitmap one' 'bitmap two -g 4k'
image bitmap-long-name.qcow2 qcow2 64M '' "bitmap $(printf 'n%.0s' {1..1023})"
image bitmap-inconsistent.qcow2 qcow2 64M '' 'bitmap one' 'write 1M 1M' flush crash
image bitmap-unaligned.qcow2 qcow2 1000001 '' 'bitmap one -g 512'
image bitmap-snapshot.qcow2 qcow2 64M '' 'bitmap one' 'write 0 1M' 'snapshot s'

# --- raw: lengths, holes, space that is reserved but not written
for length in 0 1 511 512 513 4095 4096 4097 65535 65537 1048577; do
    image "length-$length.raw" raw "$length" ''
    [ "$length" = 0 ] || image "length-$length-data.raw" raw "$length" '' "data 0 $length"
done
image hole.raw raw 1G ''
image hole-1T.raw raw 1T '' 'data 549755813888 100000'
image hole-15T.raw raw 15T '' 'data 15G 1'
image hole-in-front.raw raw 16M '' 'data 8388608 1048576'
image hole-behind.raw raw 16M '' 'data 0 1048576'
image hole-in-between.raw raw 16M '' 'data 0 1000' 'data 16777215 1'
image holes.raw raw 64M '' 'data 4096 4096' 'data 131072 65536' 'data 1000000 1000000' 'data 33554431 2' 'data 67000000 100000'
image comb.raw raw 16M '' 'data 0 16777216' 'hole 65536 4096' 'hole 1048576 65536' 'hole 2101248 126976' 'hole 12582912 4194304'
image punched.raw raw 8M '' 'data 0 8388608' 'hole 0 8388608'
image reserved.raw raw 8M '' 'reserve 0 8388608'
image reserved-and-written.raw raw 8M '' 'reserve 0 8388608' 'data 1048576 1048576'
image created.raw raw 64M preallocation=off
image falloc.raw raw 8M preallocation=falloc
image full.raw raw 8M preallocation=full
image zeros.raw raw 8M preallocation=full 'copy never'
image cut.raw raw 16M '' 'data 0 16777216' 'length 5000000'

# --- VHD, VHDX and VMDK, each in one file
for size in 0 1M 100M 3000M; do
    image "size-$size.vpc" vpc "$size" ''
    image "size-$size-exact.vpc" vpc "$size" force_size=on
done
image dynamic.vpc vpc 64M '' 'write 0 3M' 'write 20M 64k' 'write -z 30M 1M' 'write 63M 512'
image dynamic-1T.vpc vpc 1T force_size=on 'write 500G 3M'
image fixed.vpc vpc 8M subformat=fixed 'write 1M 1M'
image fixed-empty.vpc vpc 8M subformat=fixed,force_size=on
for size in 1M 100M 5G; do
    image "size-$size.vhdx" vhdx "$size" ''
done
for block in 1M 8M 64M; do
    image "block-$block.vhdx" vhdx 256M "block_size=$block" 'write 0 3M' 'write 200M 64k' 'write -z 100M 2M'
done
image fixed.vhdx vhdx 8M subformat=fixed 'write 1M 1M'
for size in 0 64k 1M 100M 5G; do
    image "size-$size.vmdk" vmdk "$size" ''
done
image sparse.vmdk vmdk 64M '' 'write 0 3M' 'write 20M 64k' 'write -z 30M 1M' 'write 65535k 512'
image sparse-1T.vmdk vmdk 1T '' 'write 500G 3M'
image sparse-zeroed.vmdk vmdk 64M zeroed_grain=on 'write 0 3M' 'write -z 1M 1M' 'write -z 30M 1M'
image stream.vmdk vmdk 64M '' 'write 0 3M' 'write 20M 64k' 'convert -o subformat=streamOptimized'
image stream-empty.vmdk vmdk 64M '' 'convert -o subformat=streamOptimized'

# --- random ones: sizes, options and writes by a fixed sequence
for number in {1..40}; do
    below 13; cluster=${clusters[random]}
    below 4096; size=$((4 * 1024 * 1024 + random * 512))
    options=cluster_size=$cluster
    below 4; [ $random -gt 0 ] || options+=,compat=0.10
    below 3; [[ $random -gt 0 || $options == *0.10* || $cluster =~ ^([1248]k|512)$ ]] || options+=,extended_l2=on
    below 4; [ $random -gt 0 ] || options+=,preallocation=metadata
    steps=()
    for _ in {1..12}; do
        below $((size / 512 - 1)); offset=$((random * 512))
        below 8; length=$(((size - offset) >> random))
        below 400000; [ $length -le 400000 ] || length=$random
        length=$((length / 512 * 512))
        [ $length -gt 0 ] || length=512
        below 8
        case $random in
            0) steps+=("write -z $offset $length") ;;
            1) steps+=("write -z -u $offset $length") ;;
            2) steps+=("discard $offset $length") ;;
            *) steps+=("write $offset $length") ;;
        esac
    done
    image "random-$number.qcow2" qcow2 "$size" "$options" "${steps[@]}"
done
for number in {1..20}; do
    below 20000000; size=$((random + 1))
    steps=()
    for _ in {1..10}; do
        below "$size"; offset=$random
        below 300000; length=$((random + 1))
        [ $((offset + length)) -le $size ] || length=$((size - offset))
        below 3
        if [ $random = 0 ]; then steps+=("hole $offset $length"); else steps+=("data $offset $length"); fi
    done
    image "random-$number.raw" raw "$size" '' "${steps[@]}"
done
