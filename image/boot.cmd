# U-Boot's script on a card of Postern. mkimage packs it, and U-Boot's distro_bootcmd finds it
# in the first partition. U-Boot sets devtype, devnum and the addresses
# (doc/develop/distro.rst of its source). Numbers are hexadecimal, except in test.
echo "Postern: looking for a slot"
${devtype} dev ${devnum}
part start ${devtype} ${devnum} @STATES@ states
setenv block ${ramdisk_addr_r}
setenv fit ${ramdisk_addr_r}

# recall: read the state of a slot at the sector state. worth is 2 if it may be started, 1 if
# it was tried and never confirmed, 0 if it has no complete image.
setenv recall '
	setenv magic; setenv sequence; setenv tried; setenv confirmed
	setenv length; setenv sha256; setenv version
	setexpr at ${states} + ${state}
	${devtype} read ${block} ${at} 8
	env import -t ${block} 1000 magic sequence tried confirmed length sha256 version
	setenv worth 0
	if test "${magic}" = PST1; then
		setenv worth 1
		if test "${confirmed}" = 1; then setenv worth 2; fi
		if test "${tried}" = 0; then setenv worth 2; fi
	else
		setenv sequence 0
	fi'

# attempt: start the slot named slot in the partition part. The second word of a FIT is its
# length, big-endian. bootm refuses what is no FIT, and a FIT with wrong hashes.
setenv attempt '
	echo "Postern: slot ${slot}"
	run recall
	if test "${magic}" = PST1 -a "${confirmed}" != 1; then
		setenv tried 1
		setexpr text ${block} + 19
		env export -t -s fe7 ${text} magic sequence tried confirmed length sha256 version
		${devtype} write ${block} ${at} 8
	fi
	part start ${devtype} ${devnum} ${part} first
	${devtype} read ${fit} ${first} 1
	setexpr at ${fit} + 5; setexpr.b size *${at}; setexpr size ${size} * 10000
	setexpr at ${fit} + 6; setexpr.b byte *${at}; setexpr byte ${byte} * 100
	setexpr size ${size} + ${byte}
	setexpr size ${size} / 200; setexpr size ${size} + 2
	${devtype} read ${fit} ${first} ${size}
	setenv bootargs "@COMMANDLINE@ postern.slot=${slot}"
	bootm ${fit}'

setenv state 8; run recall
setenv a ${worth}; setenv a_sequence ${sequence}
setenv state 18; run recall
setenv order "a b"
if test ${worth} -gt ${a}; then setenv order "b a"; fi
if test ${worth} -eq ${a} -a ${sequence} -gt ${a_sequence}; then setenv order "b a"; fi
for slot in ${order}; do
	if test ${slot} = a; then setenv state 8; setenv part @A@; else setenv state 18; setenv part @B@; fi
	run attempt
done
echo "Postern: no slot could be started; restart in 30 seconds, Ctrl-C for the prompt"
if sleep 1e; then reset; fi
